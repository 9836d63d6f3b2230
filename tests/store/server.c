#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ftw.h>
#include <sys/wait.h>
#include <unistd.h>
#include "store/server.h"
#include "store/store.h"

static unsigned tmp_count;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    const char *name = path + ftw->base;
    (void)st, (void)type;
    if (strncmp(name, STORE_TMP_PREFIX, sizeof STORE_TMP_PREFIX - 1) == 0) tmp_count++;
    return remove(path);
}

unsigned tree_remove(const char *path)
{
    tmp_count = 0;
    nftw(path, visit, 16, FTW_DEPTH | FTW_PHYS);
    return tmp_count;
}

int server_run(struct server *s, const char *verb, const char *more)
{
    char command[1024], line[512];
    size_t used = 0;
    snprintf(command, sizeof command, "'%.*s/../servers/%s' %s '%s' %s",
             (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__, s->name, verb, s->dir, more);
    FILE *f = popen(command, "r");
    if (f == NULL) return -1;
    if (strcmp(verb, "start") == 0) s->text[0] = '\0';
    while (fgets(line, sizeof line, f) != NULL) {
        size_t size = strlen(line);
        if (strchr(line, '=') == NULL) fputs(line, stdout);
        if (strchr(line, '=') == NULL || used + size >= sizeof s->text) continue;
        memcpy(s->text + used, line, size + 1);
        used += size;
    }
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void server_value(const struct server *s, const char *key, char *out, size_t out_size)
{
    size_t size = strlen(key);
    for (const char *line = s->text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, key, size) != 0 || line[size] != '=') continue;
        const char *value = line + size + 1;
        int value_size = (int)strcspn(value, "\n");
        if (snprintf(out, out_size, "%.*s", value_size, value) < (int)out_size) return;
    }
    printf("servers/%s did not say what %s is, or it is longer than %zu bytes\n", s->name, key,
           out_size - 1);
    out[0] = '\0';
}

int server_test(struct server *s, const char *name, int (*run)(void))
{
    *s = (struct server){.name = name};
    snprintf(s->dir, sizeof s->dir, "/tmp/sluice-%s-%d", name, (int)getpid());
    int status = server_run(s, "start", "");
    if (status == 0) {
        status = run() == 0 ? 0 : 1;
        if (server_run(s, "stop", "") != 0) status = 1;
    }
    tree_remove(s->dir);
    return status == 0 || status == 77 ? status : 1;
}
