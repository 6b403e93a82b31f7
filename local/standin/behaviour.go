package standin

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Behaviour is how a stand-in misbehaves. The zero Behaviour is none of it.
type Behaviour struct {
	// Status is answered instead of 200; 0 leaves 200. Else 200 to 599.
	Status int
	// Ratio is the share of requests that misbehave, above 0 and at most 1; 0 stands for 1.
	Ratio float64
	// Delay is how long an answer is held back; not negative.
	Delay time.Duration
}

// ParseBehaviour reads settings like "status=503 ratio=0.5 delay=50ms"; an empty text is the zero Behaviour.
func ParseBehaviour(text string) (Behaviour, error) {
	var b Behaviour
	for setting := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return Behaviour{}, fmt.Errorf("cannot read %q: settings are status=503, ratio=0.5 and delay=50ms", setting)
		}
		if err := b.Set(name, value); err != nil {
			return Behaviour{}, err
		}
	}
	return b, nil
}

// Set gives b one setting: status, ratio or delay.
func (b *Behaviour) Set(name, value string) error {
	switch name {
	case "status":
		n, err := strconv.Atoi(value)
		if err != nil || n < 200 || n > 599 {
			return fmt.Errorf("cannot read status=%s: it is a number from 200 to 599", value)
		}
		b.Status = n
	case "ratio":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f > 0 && f <= 1) {
			return fmt.Errorf("cannot read ratio=%s: it is a number above 0 and at most 1", value)
		}
		b.Ratio = f
	case "delay":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return fmt.Errorf("cannot read delay=%s: it is a time like 50ms or 1.5s", value)
		}
		b.Delay = d
	default:
		return fmt.Errorf("cannot read %s=%s: settings are status=503, ratio=0.5 and delay=50ms", name, value)
	}
	return nil
}

// String writes b as ParseBehaviour reads it.
func (b Behaviour) String() string {
	var parts []string
	if b.Status != 0 {
		parts = append(parts, "status="+strconv.Itoa(b.Status))
	}
	if b.Ratio != 0 {
		parts = append(parts, "ratio="+strconv.FormatFloat(b.Ratio, 'g', -1, 64))
	}
	if b.Delay != 0 {
		parts = append(parts, "delay="+b.Delay.String())
	}
	return strings.Join(parts, " ")
}

// strikes says whether this request is one that misbehaves.
func (b Behaviour) strikes() bool {
	if b.Status == 0 && b.Delay == 0 {
		return false
	}
	return b.Ratio == 0 || b.Ratio >= 1 || rand.Float64() < b.Ratio
}
