CREATE TABLE "Label" (
    "name" TEXT NOT NULL PRIMARY KEY
);
CREATE TABLE "_LabelToProduct" (
    "A" TEXT NOT NULL,
    "B" INTEGER NOT NULL,
    CONSTRAINT "_LabelToProduct_A_fkey" FOREIGN KEY ("A") REFERENCES "Label" ("name") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "_LabelToProduct_B_fkey" FOREIGN KEY ("B") REFERENCES "Product" ("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "_LabelToProduct_AB_unique" ON "_LabelToProduct"("A", "B");
CREATE INDEX "_LabelToProduct_B_index" ON "_LabelToProduct"("B");
