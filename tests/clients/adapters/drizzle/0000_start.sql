CREATE TABLE `users` (
    `id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    `email` text NOT NULL,
    `created_at` integer NOT NULL,
    `settings` text,
    `balance` blob
);
--> statement-breakpoint
CREATE UNIQUE INDEX `users_email_unique` ON `users` (`email`);
--> statement-breakpoint
CREATE TABLE `posts` (
    `id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    `author_id` integer NOT NULL,
    `title` text NOT NULL,
    `published` integer DEFAULT false NOT NULL,
    FOREIGN KEY (`author_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
