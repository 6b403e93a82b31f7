package http2

import "encoding/binary"

// frameType is the type of a frame (RFC 9113 §6).
type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameRSTStream
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
	framePriorityUpdate frameType = 0x10 // RFC 9218 §7.1
)

// Flags of frames.
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	// Preface is what a client sends first (RFC 9113 §3.4).
	Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameHead     = 9
	frameMax      = 1 << 14 // the largest payload that we take, and the least that any peer takes
	initialWindow = 65535
	maxWindow     = 1<<31 - 1
	maxID         = 1<<31 - 1
)

// setting is the identifier of a setting (RFC 9113 §6.5.2).
type setting uint16

const (
	settingTableSize         setting = 0x1
	settingPush              setting = 0x2
	settingMaxStreams        setting = 0x3
	settingWindow            setting = 0x4
	settingMaxFrame          setting = 0x5
	settingHeaderList        setting = 0x6
	settingConnectProtocol   setting = 0x8 // RFC 8441
	settingNoOldPriorities   setting = 0x9 // RFC 9218
	bytesOfSetting                   = 6
	maxPadding                       = 256
	bytesOfPriority                  = 5
	bytesOfPing                      = 8
	bytesOfWindowUpdate              = 4
	bytesOfReset                     = 4
	bytesOfGoAway                    = 8
	bytesOfPriorityUpdateMin         = 4
)

// appendFrame appends the head of a frame whose payload has n bytes.
func appendFrame(dst []byte, n int, t frameType, flags uint8, id uint32) []byte {
	return append(dst, byte(n>>16), byte(n>>8), byte(n), byte(t), flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// putFrame writes the head of a frame into dst.
func putFrame(dst []byte, n int, t frameType, flags uint8, id uint32) {
	_ = dst[8]
	dst[0], dst[1], dst[2], dst[3], dst[4] = byte(n>>16), byte(n>>8), byte(n), byte(t), flags
	binary.BigEndian.PutUint32(dst[5:], id)
}

func appendSetting(dst []byte, s setting, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, uint16(s)), v)
}

func appendReset(dst []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(dst, bytesOfReset, frameRSTStream, 0, id), uint32(code))
}

func appendWindowUpdate(dst []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(dst, bytesOfWindowUpdate, frameWindowUpdate, 0, id), n)
}

func appendPing(dst []byte, flags uint8, data uint64) []byte {
	return binary.BigEndian.AppendUint64(appendFrame(dst, bytesOfPing, framePing, flags, 0), data)
}

func appendGoAway(dst []byte, last uint32, code Code, why string) []byte {
	dst = appendFrame(dst, bytesOfGoAway+len(why), frameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	return append(binary.BigEndian.AppendUint32(dst, uint32(code)), why...)
}

// unpad returns a payload without its padding (RFC 9113 §6.1).
func unpad(p []byte, flags uint8) ([]byte, *Error) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) == 0 {
		return nil, errFrameSize
	}
	n := int(p[0])
	if n >= len(p) {
		return nil, errPadding
	}
	return p[1 : len(p)-n], nil
}
