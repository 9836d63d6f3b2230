/* xml.c -- see xml.h. */
#include "store/xml.h"
#include "base/buf.h"
#include "base/mem.h"
#include <expat.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct walk {
    XML_Parser parser;
    xml_fn *fn;
    void *ctx;
    struct err *err;
    enum rc rc;
    int depth;
    size_t path_size;
    char path[XML_PATH_MAX];
    size_t ends[XML_DEPTH]; /* path_size before each open element */
    size_t text_size;
    char text[XML_TEXT_MAX + 1]; /* of the innermost open element, while it has no children */
    bool child;                  /* the innermost element that was open has ended with children */
};

struct finder {
    const char *path;
    char *out;
    size_t out_size;
    bool found;
};

static const XML_Memory_Handling_Suite memory = {mem_alloc, mem_realloc, mem_free};

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes);
static void XMLCALL on_end(void *ctx, const XML_Char *name);
static void XMLCALL on_text(void *ctx, const XML_Char *text, int size);
static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system_id,
                               const XML_Char *public_id, int has_subset);
static void stop(struct walk *w, enum rc rc);
static enum rc find(void *ctx, const char *path, const char *text, struct err *err);

enum rc xml_walk(const void *data, size_t size, xml_fn *fn, void *ctx, struct err *err)
{
    CLEANUP(mem_freep) struct walk *w = mem_calloc(1, sizeof *w);
    if (w == NULL) return err_mem(err, "an XML document");
    *w = (struct walk){.fn = fn, .ctx = ctx, .err = err};
    w->parser = XML_ParserCreate_MM("UTF-8", &memory, NULL);
    if (w->parser == NULL) return err_mem(err, "an XML document");
    if (size > INT_MAX) size = INT_MAX; /* cut off, so not well-formed */
    XML_SetUserData(w->parser, w);
    XML_SetElementHandler(w->parser, on_start, on_end);
    XML_SetCharacterDataHandler(w->parser, on_text);
    XML_SetStartDoctypeDeclHandler(w->parser, on_doctype);
    enum XML_Status status = XML_Parse(w->parser, data, (int)size, 1);
    enum XML_Error code = XML_GetErrorCode(w->parser);
    unsigned long line = XML_GetCurrentLineNumber(w->parser);
    XML_ParserFree(w->parser);
    if (w->rc != RC_OK) return w->rc;
    if (status == XML_STATUS_OK) return RC_OK;
    if (code == XML_ERROR_NO_MEMORY) return err_mem(err, "an XML document");
    return err_set(err, RC_CORRUPT, "malformed XML in line %lu: %s", line, XML_ErrorString(code));
}

bool xml_find(const void *data, size_t size, const char *path, char *out, size_t out_size)
{
    struct finder f = {.path = path, .out = out, .out_size = out_size};
    struct err ignored;
    /* Found and then broken is found: the walk ends there. */
    if (xml_walk(data, size, find, &f, &ignored) != RC_OK) err_clear(&ignored);
    return f.found;
}

enum rc xml_append(struct buf *b, const char *text, struct err *err)
{
    while (*text != '\0') {
        size_t plain = strcspn(text, "&<>\"'");
        TRY(buf_append(b, text, plain, err));
        text += plain;
        if (*text != '\0') TRY(buf_printf(b, err, "&#%d;", *text++));
    }
    return RC_OK;
}

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct walk *w = ctx;
    const char *local = strrchr(name, ':');
    (void)attributes;
    if (w->rc != RC_OK) return;
    local = local ? local + 1 : name;
    size_t size = strlen(local);
    if (w->depth == XML_DEPTH || w->path_size + size + 2 > sizeof w->path) {
        err_set(w->err, RC_CORRUPT, "XML is nested too deeply, or its names are too long");
        stop(w, RC_CORRUPT);
        return;
    }
    w->ends[w->depth++] = w->path_size;
    if (w->path_size > 0) w->path[w->path_size++] = '/';
    memcpy(w->path + w->path_size, local, size + 1);
    w->path_size += size;
    w->text_size = 0;
    w->child = false;
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    struct walk *w = ctx;
    (void)name;
    if (w->rc != RC_OK) return;
    w->text[w->child ? 0 : w->text_size] = '\0';
    enum rc rc = w->fn(w->ctx, w->path, w->text, w->err);
    if (rc != RC_OK) stop(w, rc);
    w->path_size = w->ends[--w->depth];
    w->path[w->path_size] = '\0';
    w->text_size = 0;
    w->child = true;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int size)
{
    struct walk *w = ctx;
    if (w->rc != RC_OK || w->child) return; /* white space between elements */
    if (w->text_size + (size_t)size > XML_TEXT_MAX) {
        err_set(w->err, RC_CORRUPT, "XML holds a text of more than %d bytes in '%s'", XML_TEXT_MAX,
                w->path);
        stop(w, RC_CORRUPT);
        return;
    }
    memcpy(w->text + w->text_size, text, (size_t)size);
    w->text_size += (size_t)size;
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system_id,
                               const XML_Char *public_id, int has_subset)
{
    struct walk *w = ctx;
    (void)name, (void)system_id, (void)public_id, (void)has_subset;
    err_set(w->err, RC_CORRUPT, "XML has a document type declaration, which is refused");
    stop(w, RC_CORRUPT);
}

static void stop(struct walk *w, enum rc rc)
{
    w->rc = rc;
    XML_StopParser(w->parser, XML_FALSE);
}

static enum rc find(void *ctx, const char *path, const char *text, struct err *err)
{
    struct finder *f = ctx;
    if (strcmp(path, f->path) != 0) return RC_OK;
    snprintf(f->out, f->out_size, "%s", text);
    f->found = true;
    return err_set(err, RC_CANCELED, "found");
}
