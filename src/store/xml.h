/*
 * xml.h -- reads the small XML documents of object stores, over expat: bounded and without DTDs.
 *
 * A document is walked once. For each element that ends, fn gets its path from the root
 * ("ListBucketResult/Contents/Key", prefixes of namespaces removed) and its own text with entities
 * decoded ("" when it has children only); so a record is complete when its own path comes.
 * Refused with RC_CORRUPT: a document type declaration (so no entities of its own), more than
 * XML_DEPTH levels, a text of more than XML_TEXT_MAX bytes, a path over XML_PATH_MAX, anything that
 * is not well-formed.
 * Threads: any.
 */
#ifndef STORE_XML_H
#define STORE_XML_H
#include "base/err.h"

#define XML_DEPTH    16
#define XML_TEXT_MAX 4096
#define XML_PATH_MAX 256

typedef enum rc xml_fn(void *ctx, const char *path, const char *text, struct err *err);
/* Fails: RC_CORRUPT; fn's rc; RC_NO_MEM. */
MUST_CHECK enum rc xml_walk(const void *data, size_t size, xml_fn *fn, void *ctx, struct err *err);
/* The text of the first element with this path, in out (cut to out_size - 1); false: there is none,
 * or the document is broken. For error answers. */
bool xml_find(const void *data, size_t size, const char *path, char *out, size_t out_size);
/* Append text with & < > " ' as entities. Fails: RC_NO_MEM. */
struct buf;
MUST_CHECK enum rc xml_append(struct buf *b, const char *text, struct err *err);
#endif
