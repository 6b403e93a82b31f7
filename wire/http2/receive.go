package http2

import "encoding/binary"

// mine says whether an id is one of a stream that the client opens, which all are here: a server opens none.
func mine(id uint32) bool { return id&1 == 1 }

// idle says whether no stream of that id was opened yet. The reader may ask a server without the lock: only it opens streams there.
func (c *Conn) idle(id uint32) bool { return !mine(id) || id > c.lastID }

// ignored says whether a frame on a stream that is not there is no error: the peer may have sent it before it knew.
func (c *Conn) ignored(id uint32) bool {
	return c.gone.has(id) || c.gone.lost || c.drain == drained && c.role == Server && id > c.drainID
}

// data handles DATA (RFC 9113 §6.1).
func (c *Conn) data(flags uint8, id uint32, p []byte) *Error {
	if id == 0 {
		return errStreamZero
	}
	whole := int32(len(p))
	p, e := unpad(p, flags)
	if e != nil {
		return e
	}
	end := flags&flagEndStream != 0
	if len(p) > 0 {
		c.tallies.data++
	} else if !end {
		if e := c.empty(); e != nil {
			return e
		}
	}
	c.wmu.Lock()
	if whole > c.recvWindow {
		c.wmu.Unlock()
		return errConnWindow
	}
	c.recvWindow -= whole
	s := c.streams.find(id)
	if s == nil {
		c.refund(whole)
		e := c.stray(id)
		c.wmu.Unlock()
		return e
	}
	if e := c.take(s, p, whole, end); e != nil {
		c.refund(whole)
		return c.refuse(s, e)
	}
	c.wmu.Unlock()
	if len(p) > 0 || end {
		c.h.Data(s, p, end)
	}
	return nil
}

// take accounts for a DATA frame on a stream that is there.
func (c *Conn) take(s *Stream, p []byte, whole int32, end bool) *Error {
	n := int32(len(p))
	switch {
	case s.remoteEnded:
		return errHalfClosed
	case whole > s.recvWindow:
		return errStreamWindow
	case c.role == Client && !s.gotHead:
		return errNoHead
	case s.bodiless && n > 0:
		return errLengthDiffers
	}
	if s.left >= 0 {
		if s.left -= int64(n); s.left < 0 || end && s.left > 0 {
			return errLengthDiffers
		}
	}
	s.recvWindow -= whole
	s.unconsumed += n
	if pad := whole - n; pad > 0 {
		c.refund(pad)
		c.refundStream(s, pad)
	}
	if end {
		c.endRemote(s)
	}
	return nil
}

// stray judges a frame on a stream that is not in the table, called with the lock.
func (c *Conn) stray(id uint32) *Error {
	switch {
	case c.idle(id):
		return errIdle
	case !c.ignored(id):
		return errClosed
	}
	return nil
}

// refuse ends a stream for an error of the peer's, called with the lock and returning without it.
func (c *Conn) refuse(s *Stream, e *Error) *Error {
	c.count(e)
	c.cancel(s, e.Code)
	calm := c.answered()
	c.resetCall(s, e.Code, false, e)
	c.wmu.Unlock()
	if calm == nil && c.role == Server {
		calm = c.reset()
	}
	return calm
}

// answered counts a frame that was appended in answer to one of the peer's.
func (c *Conn) answered() *Error {
	if c.out.answers++; c.out.answers > maxUnread || c.flooded() {
		return errUnread
	}
	return nil
}

// flooded says whether so much waits to be flushed that more must not be asked for.
func (c *Conn) flooded() bool { return c.out.pending() > c.o.WriteBuffer*maxPendingFactor }

// rstStream handles RST_STREAM (RFC 9113 §6.4).
func (c *Conn) rstStream(id uint32, p []byte) *Error {
	switch {
	case len(p) != bytesOfReset:
		return errFrameSize
	case id == 0:
		return errStreamZero
	}
	c.wmu.Lock()
	s := c.streams.find(id)
	if s == nil {
		idle := c.idle(id)
		c.wmu.Unlock()
		if idle {
			return errIdle
		}
		return c.empty()
	}
	early := !s.responded
	c.unlink(s)
	c.resetCall(s, Code(binary.BigEndian.Uint32(p)), true, nil)
	c.wmu.Unlock()
	if c.role == Server && early {
		return c.reset()
	}
	return nil
}

// windowUpdate handles WINDOW_UPDATE (RFC 9113 §6.9).
func (c *Conn) windowUpdate(id uint32, p []byte) *Error {
	if len(p) != bytesOfWindowUpdate {
		return errFrameSize
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	c.wmu.Lock()
	if e := c.update(c.dataSent); e != nil {
		c.wmu.Unlock()
		return e
	}
	if id == 0 {
		defer c.wmu.Unlock()
		switch {
		case n == 0:
			return errWindowZero
		case int64(c.sendWindow)+n > maxWindow:
			return errWindowOverflow
		}
		c.sendWindow += int32(n)
		if c.choked != 0 {
			if c.opened += n; c.opened >= unchoked {
				c.choked = 0
			}
		}
		c.wake()
		return nil
	}
	s := c.streams.find(id)
	if s == nil {
		defer c.wmu.Unlock()
		if c.idle(id) {
			return errIdle
		}
		return nil // it may come after the end (RFC 9113 §5.1)
	}
	switch {
	case n == 0:
		return c.refuse(s, errStreamZeroAdd)
	case int64(s.sendWindow)+n > maxWindow:
		return c.refuse(s, errStreamGrown)
	}
	s.sendWindow += int32(n)
	if s.isBlocked && s.sendWindow > 0 && c.sendWindow > 0 {
		if c.out.pending() < c.o.WriteBuffer {
			c.blocked.remove(s)
			c.writable(s)
		} else {
			c.out.starved = true
		}
	}
	c.wmu.Unlock()
	return nil
}

// settings handles SETTINGS (RFC 9113 §6.5).
func (c *Conn) settings(flags uint8, id uint32, p []byte) *Error {
	switch {
	case id != 0:
		return errNotStreamZero
	case flags&flagAck != 0 && len(p) > 0, len(p)%bytesOfSetting != 0:
		return errFrameSize
	case c.tallies.settings.over(c, maxSettings):
		return errSettings
	case flags&flagAck != 0:
		return nil // what ours allow, we have allowed from the first byte on
	}
	c.wmu.Lock()
	if c.stage == atSettings {
		c.stage = atFrames
		c.peer.maxStreams = maxID // there is no limit unless they tell one
	}
	e := c.apply(p)
	if e == nil {
		var b []byte
		b, e = c.answer()
		c.out.set(appendFrame(b, 0, frameSettings, flagAck, 0))
		c.wake()
	}
	c.wmu.Unlock()
	if e == nil {
		c.h.Settings()
	}
	return e
}

// apply takes the peer's settings over, in their order.
func (c *Conn) apply(p []byte) *Error {
	for ; len(p) > 0; p = p[bytesOfSetting:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch setting(binary.BigEndian.Uint16(p)) {
		case settingTableSize:
			c.enc.SetLimit(v)
		case settingPush:
			if v > 1 || v == 1 && c.role == Client {
				return errSetting
			}
		case settingMaxStreams:
			c.peer.maxStreams = v
		case settingWindow:
			if v > maxWindow {
				return errWindowSetting
			}
			if e := c.initialWindow(int32(v)); e != nil {
				return e
			}
		case settingMaxFrame:
			if v < frameMax || v >= 1<<24 {
				return errSetting
			}
			c.peer.maxFrame = min(int(v), frameMax) // larger ones would hold up their neighbours
		case settingHeaderList:
			c.peer.headerList = max(v, 1)
		case settingConnectProtocol:
			if v > 1 || v == 0 && c.peer.connect {
				return errSetting
			}
			c.peer.connect = v == 1
		case settingNoOldPriorities:
			if v > 1 {
				return errSetting
			}
		}
	}
	return nil
}

// initialWindow changes what all streams may send (RFC 9113 §6.9.2).
func (c *Conn) initialWindow(v int32) (e *Error) {
	delta := int64(v) - int64(c.peer.window)
	c.peer.window = v
	c.streams.each(func(s *Stream) bool {
		w := int64(s.sendWindow) + delta
		if w > maxWindow {
			e = errWindowOverflow
			return false
		}
		s.sendWindow = int32(w)
		return true
	})
	return e
}

// ping handles PING (RFC 9113 §6.7).
func (c *Conn) ping(flags uint8, id uint32, p []byte) *Error {
	switch {
	case len(p) != bytesOfPing:
		return errFrameSize
	case id != 0:
		return errNotStreamZero
	}
	c.wmu.Lock()
	sent := c.dataSent
	c.wmu.Unlock()
	if e := c.pinged(sent); e != nil {
		return e
	}
	data := binary.BigEndian.Uint64(p)
	if flags&flagAck == 0 {
		c.wmu.Lock()
		b, e := c.answer()
		c.out.set(appendPing(b, flagAck, data))
		c.wmu.Unlock()
		return e
	}
	if data == shutdownPing {
		c.wmu.Lock()
		if c.drain == announced && !c.closed {
			c.settle()
		}
		c.wmu.Unlock()
		return nil
	}
	c.h.Pong(data)
	return nil
}

// priority handles PRIORITY (RFC 9113 §6.3), whose content means nothing any more.
func (c *Conn) priority(id uint32, p []byte) *Error {
	if id == 0 {
		return errStreamZero
	}
	if c.tallies.priorities.over(c, maxPriorities) {
		return errPriorities
	}
	e := errPrioritySize
	if len(p) == bytesOfPriority {
		if binary.BigEndian.Uint32(p)&maxID != id {
			return nil
		}
		e = errDepends
	}
	c.wmu.Lock()
	if s := c.streams.find(id); s != nil {
		return c.refuse(s, e)
	}
	// There is no stream to end: an idle one must not get a RST_STREAM (RFC 9113 §6.4), so the connection ends.
	known := c.ignored(id)
	c.wmu.Unlock()
	if known {
		return nil
	}
	return e
}

// priorityUpdate handles PRIORITY_UPDATE (RFC 9218 §7.1).
func (c *Conn) priorityUpdate(id uint32, p []byte) *Error {
	switch {
	case id != 0:
		return errNotStreamZero
	case len(p) < bytesOfPriorityUpdateMin:
		return errFrameSize
	case binary.BigEndian.Uint32(p)&maxID == 0:
		return errStreamZero
	case c.tallies.priorities.over(c, maxPriorities):
		return errPriorities
	}
	return nil
}

// goAway handles GOAWAY (RFC 9113 §6.8).
func (c *Conn) goAway(id uint32, p []byte) *Error {
	switch {
	case id != 0:
		return errNotStreamZero
	case len(p) < bytesOfGoAway:
		return errFrameSize
	}
	if e := c.empty(); e != nil {
		return e
	}
	last, code := binary.BigEndian.Uint32(p)&maxID, Code(binary.BigEndian.Uint32(p[4:]))
	c.wmu.Lock()
	if c.away {
		last = min(last, c.awayLast) // it must not take back what it refused
	}
	c.away, c.awayLast = true, last
	if c.role == Client {
		for s := c.streams.above(last); s != nil; s = c.streams.above(last) {
			c.unlink(s)
			c.resetCall(s, RefusedStream, true, errAway)
		}
	}
	c.wmu.Unlock()
	c.h.GoAway(last, code)
	return nil
}
