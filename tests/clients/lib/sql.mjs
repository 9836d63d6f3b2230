/*
 * sql.mjs -- SQL that several tests need.
 */

/* The beginning of a statement: its table n(i) holds the numbers from 1 to count. */
export function upTo(count) {
    return `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ${count})`;
}
