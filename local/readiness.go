package local

import (
	"context"
	"fmt"
	"time"

	"github.com/outrider-mesh/outrider/mesh/probe"
)

// This file is what the mesh does with the verdicts of its sidecars on their applications (a WorkloadGroup's probe): an
// instance whose application is not ready stays an endpoint of its services, and is marked so that nobody asks it.

// firstAnswers bounds how long the start of the mesh waits for applications' first answers.
const firstAnswers = time.Second

// hear takes a sidecar's verdict; whoever follows the files publishes it.
func (m *Mesh) hear(key string, c probe.Change) {
	m.mu.Lock()
	switch {
	case c.To == probe.Unready:
		m.verdicts = append(m.verdicts, fmt.Sprintf("%s gets no requests: it fails its probe: %s", key, c.Reason))
	case c.From == probe.Unready:
		m.verdicts = append(m.verdicts, fmt.Sprintf("%s gets requests again: it passes its probe", key))
	default:
		m.verdicts = append(m.verdicts, fmt.Sprintf("%s gets requests: it passes its probe", key))
	}
	m.mu.Unlock()
	select {
	case m.judged <- struct{}{}:
	default:
	}
}

// rearrange publishes who is ready now.
func (m *Mesh) rearrange(ctx context.Context) error {
	defer m.planner.sockets.release()
	m.mu.Lock()
	told := m.verdicts
	m.verdicts = nil
	m.mu.Unlock()
	change, err := m.plane.Rearrange(ctx)
	if err != nil {
		return err
	}
	m.stats.answers(change)
	m.install()
	for _, text := range told {
		m.say("%s\n", text)
	}
	change.Applied = nil // it is said by what it is for
	m.sayAnswers(change)
	return nil
}

// askFirst gives applications that are to be asked at once a moment to answer, so that who is ready gets requests from the
// beginning.
func (m *Mesh) askFirst(ctx context.Context) error {
	var waiting []*sidecar
	m.mu.Lock()
	for _, in := range m.plan.instances {
		if p := in.template.Probe; in.Unready && p.InitialDelay == 0 && p.Successes == 1 {
			waiting = append(waiting, m.sidecars[in.id()])
		}
	}
	m.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	enough := time.NewTimer(firstAnswers)
	defer enough.Stop()
	for _, s := range waiting {
		select {
		case <-s.prober.Answered():
			continue
		case <-enough.C:
		case <-ctx.Done():
		}
		break
	}
	select {
	case <-m.judged:
		return m.rearrange(ctx)
	default:
		return nil
	}
}
