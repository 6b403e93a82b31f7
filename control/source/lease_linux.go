package source

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openForWriting says whether somebody has f's file open for writing: the kernel gives no read lease on such a file
// (fcntl(2), F_SETLEASE). Where leases are not to be had (another's file, a network file system) it says no.
func openForWriting(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	written := false
	_ = conn.Control(func(fd uintptr) { // it fails only on a closed file
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		if err == nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) // closing gives it back too
		}
		written = errors.Is(err, unix.EAGAIN)
	})
	return written
}
