"""A share that misbehaves: sharefs.py REAL MOUNT CONTROL. What CONTROL holds decides, read at each call:

  ok           everything is passed on to REAL
  rename-eio   a rename is done, and then reported as failed
  write-eio    a write is not done, and reported as failed
  read-eio     a read is reported as failed
  fsync-eio    a sync is reported as failed
SIGSTOP makes the share hang.
"""
import errno
import os
import sys

from fusepy import FUSE, FuseOSError, Operations

real, mount, control = sys.argv[1:]


def mode():
    try:
        return open(control).read().strip()
    except OSError:
        return "ok"


def broken(what):
    if mode() == what:
        raise FuseOSError(errno.EIO)


class Share(Operations):
    def __call__(self, op, path, *args):
        try:
            return super().__call__(op, real + path, *args)
        except OSError as e:
            raise FuseOSError(e.errno or errno.EIO) from None

    def getattr(self, path, fh=None):
        st = os.lstat(path)
        return {k: getattr(st, k) for k in ("st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink",
                                            "st_size", "st_uid", "st_ino")}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(path)]

    def statfs(self, path):
        st = os.statvfs(path)
        return {k: getattr(st, k) for k in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree",
                                            "f_files", "f_flag", "f_frsize", "f_namemax")}

    def access(self, path, amode):
        if not os.access(path, amode):
            raise FuseOSError(errno.EACCES)

    def rename(self, old, new):
        os.rename(old, real + new)
        broken("rename-eio")

    def create(self, path, mode, fi=None):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path, flags):
        return os.open(path, flags)

    def read(self, path, length, offset, fh):
        broken("read-eio")
        return os.pread(fh, length, offset)

    def write(self, path, buf, offset, fh):
        broken("write-eio")
        return os.pwrite(fh, buf, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(path, length)

    def fsync(self, path, datasync, fh):
        broken("fsync-eio")
        os.fsync(fh)

    def fsyncdir(self, path, datasync, fh):
        broken("fsync-eio")

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        os.close(fh)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def chown(self, path, uid, gid):
        os.chown(path, uid, gid)

    def utimens(self, path, times=None):
        os.utime(path, times)

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def rmdir(self, path):
        os.rmdir(path)

    def unlink(self, path):
        os.unlink(path)


FUSE(Share(), mount, foreground=True, nothreads=True, allow_other=False)
