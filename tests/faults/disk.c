// A disk that fails: preload it, and name a file by BREAK_DISK. While that file is there, it says what fails with EIO:
//   fsync          every fsync and fdatasync
//   fsync 3        only the third one from now on
//   write /spool/  every pwrite and write to a file whose path holds the word
//   read /vault/   every pread, read and copy_file_range from such a file
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int calls;
static __thread int busy;

// Whether a call of this kind on this descriptor fails now.
static int broken(const char *kind, int fd) {
    const char *name = getenv("BREAK_DISK");
    char what[16] = "", word[64] = "";
    if (!name || busy) return 0;
    busy = 1;
    FILE *file = fopen(name, "r");
    int given = file ? fscanf(file, "%15s %63s", what, word) : 0;
    if (file) fclose(file);
    busy = 0;
    if (!file) {
        __atomic_store_n(&calls, 0, __ATOMIC_SEQ_CST);
        return 0;
    }
    if (strcmp(what, kind) != 0) return 0;
    if (given < 2) return 1;
    if (strcmp(kind, "fsync") == 0) return __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) == atoi(word);
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return strstr(path, word) != NULL;
}

#define FAIL(kind, fd) if (broken(kind, fd)) { errno = EIO; return -1; }
#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

int fsync(int fd) { FAIL("fsync", fd) return NEXT(int (*)(int), "fsync")(fd); }
int fdatasync(int fd) { FAIL("fsync", fd) return NEXT(int (*)(int), "fdatasync")(fd); }
ssize_t write(int fd, const void *b, size_t n) {
    FAIL("write", fd) return NEXT(ssize_t (*)(int, const void *, size_t), "write")(fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) {
    FAIL("write", fd) return NEXT(ssize_t (*)(int, const void *, size_t, off_t), "pwrite")(fd, b, n, at);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) {
    FAIL("write", fd) return NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64")(fd, b, n, at);
}
ssize_t read(int fd, void *b, size_t n) {
    FAIL("read", fd) return NEXT(ssize_t (*)(int, void *, size_t), "read")(fd, b, n);
}
ssize_t pread(int fd, void *b, size_t n, off_t at) {
    FAIL("read", fd) return NEXT(ssize_t (*)(int, void *, size_t, off_t), "pread")(fd, b, n, at);
}
ssize_t pread64(int fd, void *b, size_t n, off64_t at) {
    FAIL("read", fd) return NEXT(ssize_t (*)(int, void *, size_t, off64_t), "pread64")(fd, b, n, at);
}
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t n, unsigned flags) {
    FAIL("read", in) return NEXT(ssize_t (*)(int, off64_t *, int, off64_t *, size_t, unsigned), "copy_file_range")(in, a, out, b, n, flags);
}
