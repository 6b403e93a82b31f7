package http2

// The errors of connections.
var (
	errPreface        = &Error{Code: ProtocolError, Reason: "the connection does not begin with the HTTP/2 preface"}
	errFirstFrame     = &Error{Code: ProtocolError, Reason: "the first frame is not SETTINGS"}
	errFrameSize      = &Error{Code: FrameSizeError, Reason: "a frame does not have the size that its type or the settings ask for"}
	errPadding        = &Error{Code: ProtocolError, Reason: "a frame is padded beyond its size"}
	errStreamZero     = &Error{Code: ProtocolError, Reason: "a frame that belongs to a stream stands on stream 0"}
	errNotStreamZero  = &Error{Code: ProtocolError, Reason: "a frame that belongs to the connection stands on a stream"}
	errStreamID       = &Error{Code: ProtocolError, Reason: "a stream has an id that its opener must not use"}
	errIdle           = &Error{Code: ProtocolError, Reason: "a frame stands on a stream that was not opened"}
	errClosed         = &Error{Code: StreamClosed, Reason: "a frame stands on a stream that has ended"}
	errInterleaved    = &Error{Code: ProtocolError, Reason: "another frame stands within a header block"}
	errNoBlock        = &Error{Code: ProtocolError, Reason: "CONTINUATION continues nothing"}
	errPush           = &Error{Code: ProtocolError, Reason: "PUSH_PROMISE came though push is not allowed"}
	errSetting        = &Error{Code: ProtocolError, Reason: "a setting has a value that it must not have"}
	errWindowSetting  = &Error{Code: FlowControlError, Reason: "the initial window is too large"}
	errWindowOverflow = &Error{Code: FlowControlError, Reason: "a window has grown too large"}
	errWindowZero     = &Error{Code: ProtocolError, Reason: "WINDOW_UPDATE adds nothing"}
	errConnWindow     = &Error{Code: FlowControlError, Reason: "more data came than the connection's window allows"}
	errCompression    = &Error{Code: CompressionError, Reason: "a header block cannot be decoded"}

	errResets        = &Error{Code: EnhanceYourCalm, Reason: "too many streams were opened and reset", limit: limitResets}
	errContinuations = &Error{Code: EnhanceYourCalm, Reason: "a header block has too many frames or bytes", limit: limitContinuations}
	errPings         = &Error{Code: EnhanceYourCalm, Reason: "too many PING frames", limit: limitPings}
	errSettings      = &Error{Code: EnhanceYourCalm, Reason: "too many SETTINGS frames", limit: limitSettings}
	errPriorities    = &Error{Code: EnhanceYourCalm, Reason: "too many priorities", limit: limitPriorities}
	errWindows       = &Error{Code: EnhanceYourCalm, Reason: "too many WINDOW_UPDATE frames", limit: limitWindows}
	errEmpties       = &Error{Code: EnhanceYourCalm, Reason: "too many frames without content", limit: limitEmpties}
	errUnread        = &Error{Code: EnhanceYourCalm, Reason: "too many answers wait to be read", limit: limitUnread}
)

// The errors of streams.
var (
	errRefused       = &Error{Code: RefusedStream, Reason: "too many streams are open", limit: limitRefused}
	errAway          = &Error{Code: RefusedStream, Reason: "the peer takes no further stream on the connection"}
	errStreamWindow  = &Error{Code: FlowControlError, Reason: "more data came than the stream's window allows"}
	errStreamGrown   = &Error{Code: FlowControlError, Reason: "the stream's window has grown too large"}
	errStreamZeroAdd = &Error{Code: ProtocolError, Reason: "WINDOW_UPDATE adds nothing to the stream's window"}
	errHalfClosed    = &Error{Code: StreamClosed, Reason: "a frame came behind the end of its stream"}
	errDepends       = &Error{Code: ProtocolError, Reason: "a stream depends on itself"}
	errPrioritySize  = &Error{Code: FrameSizeError, Reason: "a PRIORITY frame does not have five bytes"}
	errNoHead        = &Error{Code: ProtocolError, Reason: "data came before the head"}
	errInterims      = &Error{Code: EnhanceYourCalm, Reason: "too many interim responses came", limit: limitInterims}
	errLengthDiffers = &Error{Code: ProtocolError, Status: 400, Reason: "the body is not as long as Content-Length says"}
)

// The reasons for refusing a head. Where the head is a response's, Status means nothing.
var (
	errFieldName     = malformed("a header field name is empty or holds a character that it may not")
	errCapital       = malformed("a header field name holds a capital letter")
	errControl       = malformed("a header field value holds a control character")
	errPaddedValue   = malformed("a header field value begins or ends with white space")
	errUnderscore    = malformed("a header field name holds an underscore")
	errPseudoLate    = malformed("a pseudo-header field stands behind an ordinary one")
	errPseudoUnknown = malformed("there is a pseudo-header field that does not belong there")
	errPseudoTwice   = malformed("a pseudo-header field comes twice")
	errPseudoMissing = malformed("a pseudo-header field is missing")
	errConnection    = malformed("there is a connection-specific header field")
	errTE            = malformed("the TE field asks for more than trailers")
	errMethod        = malformed("the method is not an upper-case token")
	errScheme        = malformed("the scheme is neither http nor https")
	errPath          = malformed("the path holds a character that it may not, or does not begin with a slash")
	errAuthority     = malformed("the authority is not host[:port]")
	errNoAuthority   = malformed("the authority is missing")
	errHosts         = malformed("there is more than one Host field")
	errHostDiffers   = malformed("the Host field differs from the authority")
	errConnectPort   = malformed("the authority of CONNECT is not host:port")
	errConnectForm   = malformed("CONNECT has a scheme or a path")
	errProtocol      = malformed("there is a :protocol that is not a token, not with CONNECT, or not allowed here")
	errLengths       = malformed("there is more than one Content-Length")
	errLength        = malformed("Content-Length is not a decimal number of bytes")
	errLengthNoBody  = malformed("Content-Length announces a body that does not come")
	errConnectLength = malformed("CONNECT has a Content-Length")
	errStatus        = malformed("the status is not a number of three digits from 100 on, or is 101")
	errInterimEnd    = malformed("an interim response ends the stream")
	errTrailersOpen  = malformed("trailers do not end the stream")
	errExpect        = &Error{Code: ProtocolError, Status: 417, Reason: "only 100-continue can be expected"}
	errHeadTooLarge  = tooLarge("the head is larger than the limit")
	errFieldTooLarge = tooLarge("a header field is larger than the limit")
	errTooManyFields = tooLarge("there are more header fields than the limit")
	errPathTooLong   = &Error{Code: ProtocolError, Status: 414, Reason: "the path is longer than the limit", limit: limitHeads}
)

func malformed(why string) *Error { return &Error{Code: ProtocolError, Status: 400, Reason: why} }

func tooLarge(why string) *Error {
	return &Error{Code: ProtocolError, Status: 431, Reason: why, limit: limitHeads}
}
