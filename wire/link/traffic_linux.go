package link

import "golang.org/x/sys/unix"

func traffic(fd int) (Traffic, bool) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return Traffic{}, false
	}
	return Traffic{Sent: int64(i.Bytes_acked), Received: int64(i.Bytes_received)}, true
}
