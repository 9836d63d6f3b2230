CREATE TABLE `tags` (`name` text PRIMARY KEY NOT NULL);
--> statement-breakpoint
CREATE TABLE `posts_tags` (
    `post_id` integer NOT NULL,
    `tag` text NOT NULL,
    PRIMARY KEY(`post_id`, `tag`),
    FOREIGN KEY (`post_id`) REFERENCES `posts`(`id`) ON UPDATE no action ON DELETE cascade,
    FOREIGN KEY (`tag`) REFERENCES `tags`(`name`) ON UPDATE cascade ON DELETE no action
);
--> statement-breakpoint
PRAGMA foreign_keys=OFF;
--> statement-breakpoint
CREATE TABLE `__new_posts` (
    `id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    `author_id` integer NOT NULL,
    `title` text NOT NULL,
    `published` integer DEFAULT false NOT NULL,
    `score` real DEFAULT 0 NOT NULL,
    FOREIGN KEY (`author_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
INSERT INTO `__new_posts`("id", "author_id", "title", "published") SELECT "id", "author_id", "title", "published" FROM `posts`;
--> statement-breakpoint
DROP TABLE `posts`;
--> statement-breakpoint
ALTER TABLE `__new_posts` RENAME TO `posts`;
--> statement-breakpoint
PRAGMA foreign_keys=ON;
--> statement-breakpoint
CREATE INDEX `posts_author` ON `posts` (`author_id`);
