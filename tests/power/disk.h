/*
 * disk.h -- what may stand on a disk after a power failure, by a record of all changes (record.h).
 *
 * A file is its content before the recording and a list of changes. Those that an fsync of it
 * covers are there. Of the others each block (of 512 or 4096 bytes) shows the file as of a moment
 * of its own, some or none of them, and the size that of another moment; a block that a shorter
 * size has cut off does not come back by itself. A block that nobody has ever written holds zeros,
 * or anything.
 *
 * Names: in DISK_STRICT an fsync of a folder makes its names last, and nothing else does; what no
 * fsync covers may have happened or not, one by one, but that a name's changes keep their order,
 * and a rename happens whole. DISK_JOURNAL has one journal for the whole file system, as ext4 does:
 * names change in order, and any fsync makes all earlier changes of names last.
 *
 * Threads: one owner.
 */
#ifndef POWER_DISK_H
#define POWER_DISK_H
#include "tool.h"

enum disk_mode { DISK_STRICT, DISK_JOURNAL };
struct disk;

/* What is in the folder now is what the recording begins with: all of it is on disk. */
struct disk *disk_new(const char *folder);
void disk_free(struct disk *d); /* NULL is fine */
/* Read a log that was begun there. */
void disk_load(struct disk *d, const char *log);
uint64_t disk_size(const struct disk *d); /* of the log: the end of time */
/* Some end of a record in (low, high]; `interesting`: rather beside a change of a name or an
 * fsync. */
uint64_t disk_pick(const struct disk *d, uint64_t low, uint64_t high, bool interesting,
                   struct rng *r);
/* Make `folder`, which is not there, what the disk may hold after a power failure when the log had
 * `cut` bytes. The same generator gives the same folder. Without any -shm. */
void disk_build(const struct disk *d, uint64_t cut, enum disk_mode mode, struct rng *r,
                const char *folder);
struct disk_stats {
    uint64_t records, bytes, syncs, names;
};
struct disk_stats disk_stats(const struct disk *d);
#endif
