//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
	"github.com/outrider-mesh/outrider/bench/machine"
)

// memory is what one proxy holds in a lane.
type memory struct {
	*entrant
	atStart machine.Memory // after its start and one request
	idle    machine.Memory // with idle connections, each of which has had one answer
	after   machine.Memory // after all rounds; the process that served them
	conns   int
}

// perConnection returns how many bytes one idle connection adds.
func (m memory) perConnection() float64 {
	return float64(m.idle.RSS-m.atStart.RSS) / float64(m.conns)
}

// measureMemory starts each proxy alone, and anew for the rounds.
func (b *bench) measureMemory(all []*entrant) error {
	for _, e := range all {
		m, err := b.idleMemory(e)
		if err != nil {
			if err := b.fail(e, fmt.Errorf("cannot measure the memory of %s: %w", e.name, err)); err != nil {
				return err
			}
			continue
		}
		b.memory = append(b.memory, m)
		b.say("%s: %.1f MiB resident, %.0f bytes for each of %d idle %s connections",
			e.name, float64(m.atStart.RSS)/(1<<20), m.perConnection(), m.conns, e.lane.in)
	}
	return nil
}

func (b *bench) idleMemory(e *entrant) (m memory, err error) {
	m = memory{entrant: e, conns: b.o.idle}
	if err := b.start(e); err != nil {
		return m, err
	}
	defer func() {
		if stopErr := b.stop(e); err == nil {
			err = stopErr
		}
	}()
	if m.atStart, err = b.settle(e); err != nil {
		return m, err
	}
	for left := m.conns; left > 0; left -= openAtOnce {
		some := probe(e.lane)
		some.conns = min(left, openAtOnce)
		c, err := b.openIdle(e, some)
		if err != nil {
			return m, err
		}
		defer c.Close() // they stay open until the last look
	}
	m.idle, err = b.settle(e)
	return m, err
}

// openAtOnce is how many connections wait for their first request at a time: proxies bound how long a new connection may
// be silent, and opening all of them first may take longer.
const openAtOnce = 50

// openIdle opens connections and gets one answer on each.
func (b *bench) openIdle(e *entrant, some scenario) (*load.Client, error) {
	c, err := b.dial(e.process.addr, some)
	if err != nil {
		return nil, err
	}
	// A few at a time: idle connections of clients are to be measured, not a crowd of connections to the backends.
	err = c.Each(16)
	if n, first := c.Failures(); err == nil && n > 0 {
		err = fmt.Errorf("%d of %d connections got no answer, the first: %w", n, some.conns, first)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// settle waits until the proxy's memory has not changed by more than 1 % at five looks in a row, or for fifty looks.
func (b *bench) settle(e *entrant) (machine.Memory, error) {
	const still, patience = 5, 50
	var before machine.Memory
	same := 0
	for range patience {
		m, err := machine.MemoryOf(e.process.cmd.Process.Pid)
		if err != nil {
			return m, err
		}
		if change := m.RSS - before.RSS; change*100 > m.RSS || change*100 < -m.RSS {
			same, before = 0, m
		} else if same++; same == still {
			return m, nil
		}
		select {
		case <-b.ctx.Done():
			return m, b.ctx.Err()
		case <-time.After(b.o.settle):
		}
	}
	return machine.MemoryOf(e.process.cmd.Process.Pid)
}

// measureAfter reads the memory of the processes that have served all rounds.
func (b *bench) measureAfter(all []*entrant) error {
	for _, e := range all {
		after, err := b.settle(e)
		if err != nil {
			return err
		}
		for i := range b.memory {
			if b.memory[i].entrant == e {
				b.memory[i].after = after
			}
		}
	}
	return nil
}
