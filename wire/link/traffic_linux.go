package link

import "golang.org/x/sys/unix"

func traffic(fd int) (Traffic, bool) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return Traffic{}, false
	}
	return Traffic{Sent: int64(i.Bytes_acked), Received: int64(i.Bytes_received)}, true
}

// halfClosed says whether the peer has ended its side, be there bytes to read before that or not.
func halfClosed(fd int) bool {
	i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	return err == nil && i.State == unix.BPF_TCP_CLOSE_WAIT
}
