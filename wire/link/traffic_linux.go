package link

import "golang.org/x/sys/unix"

// traffic says what has passed. The kernel counts the ends of both sides as a byte each, which they are not.
func traffic(fd int) (Traffic, bool) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return Traffic{}, false
	}
	t := Traffic{Sent: int64(i.Bytes_acked), Received: int64(i.Bytes_received)}
	switch i.State {
	case unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		t.Received--
	case unix.BPF_TCP_FIN_WAIT2:
		t.Sent--
	case unix.BPF_TCP_TIME_WAIT:
		t.Received--
		t.Sent--
	}
	return t, true
}

// consistent is how often used looks again when something passes while it looks.
const consistent = 8

// used says what this process has read and written.
func used(fd int) (t Traffic, ok bool) {
	for range consistent {
		before, ok := traffic(fd)
		unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if !ok || err != nil {
			return Traffic{}, false
		}
		unacked, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return Traffic{}, false
		}
		if t, ok = traffic(fd); !ok || t == before {
			return Traffic{Sent: t.Sent + int64(unacked), Received: t.Received - int64(unread)}, ok
		}
		// What came meanwhile may not be among the unread: taken for read, it is missing from counts until their end, which
		// is better than to count what never came.
		t.Received -= int64(unread)
		t.Sent += int64(unacked)
	}
	return t, true
}

// halfClosed says whether the peer has ended its side, be there bytes to read before that or not.
func halfClosed(fd int) bool {
	i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	return err == nil && i.State == unix.BPF_TCP_CLOSE_WAIT
}
