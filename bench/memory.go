//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// memory is what one proxy holds.
type memory struct {
	peer  *peer
	start machine.Memory // after its start and one request
	idle  machine.Memory // with idle connections, each of which has had one answer
	after machine.Memory // after all rounds; the process that served them
	conns int
}

// perConnection returns how many bytes one idle connection adds.
func (m memory) perConnection() float64 {
	return float64(m.idle.RSS-m.start.RSS) / float64(m.conns)
}

// measureMemory starts each proxy alone, and anew for the rounds.
func (b *bench) measureMemory(peers []*peer) error {
	for _, p := range peers {
		m, err := b.idleMemory(p)
		if err != nil {
			if err := b.fail(p, fmt.Errorf("cannot measure the memory of %s: %w", p.name, err)); err != nil {
				return err
			}
			continue
		}
		b.memory = append(b.memory, m)
		b.say("%s: %.1f MiB resident, %.0f bytes for each of %d idle connections",
			p.name, float64(m.start.RSS)/(1<<20), m.perConnection(), m.conns)
	}
	return nil
}

func (b *bench) idleMemory(p *peer) (m memory, err error) {
	m = memory{peer: p, conns: b.o.idle}
	if err := b.start(p); err != nil {
		return m, err
	}
	defer func() {
		if stopErr := b.stop(p); err == nil {
			err = stopErr
		}
	}()
	if m.start, err = b.settle(p); err != nil {
		return m, err
	}
	c, err := b.loop.Dial(p.process.addr, m.conns, kinds[0].request())
	if err != nil {
		return m, err
	}
	defer c.Close()
	// A few at a time: idle connections of clients are to be measured, not a crowd of connections to the backends.
	if err := c.Each(16); err != nil {
		return m, err
	}
	if n, first := c.Failures(); n > 0 {
		return m, fmt.Errorf("%d of %d connections got no answer, the first: %w", n, m.conns, first)
	}
	m.idle, err = b.settle(p)
	return m, err
}

// settle waits until the proxy's memory has not changed by more than 1 % at five looks in a row, or for fifty looks.
func (b *bench) settle(p *peer) (machine.Memory, error) {
	const still, patience = 5, 50
	var before machine.Memory
	same := 0
	for range patience {
		m, err := machine.MemoryOf(p.process.cmd.Process.Pid)
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
	return machine.MemoryOf(p.process.cmd.Process.Pid)
}

// measureAfter reads the memory of the processes that have served all rounds.
func (b *bench) measureAfter(peers []*peer) error {
	for _, p := range peers {
		after, err := b.settle(p)
		if err != nil {
			return err
		}
		for i := range b.memory {
			if b.memory[i].peer == p {
				b.memory[i].after = after
			}
		}
	}
	return nil
}
