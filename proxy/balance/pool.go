package balance

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Pool picks among all hosts of a cluster: first a priority, then, where they have shares, a locality, then by the policy
// one of the hosts there that are not down. What it knows of their health is a picture that never changes; Changed paints a
// new one. So a pick costs one atomic load more than the policy's own, and where all hosts are up, of one priority and
// without shares, it is the policy's own. Safe for concurrent use.
type Pool struct {
	hosts   []*Host
	lb      model.LoadBalancer
	panics  int
	clock   Clock
	keyed   bool // the policy hashes
	picture atomic.Pointer[picture]
	paint   sync.Mutex
}

// picture is what a Pool knows of its hosts at one time.
type picture struct {
	down  []bool
	until int64 // when the last host is warm; 0 where none warms up
	// only is where every pick goes, unless it is nil.
	only *group
	// tiers are the priorities in order; those without a host that may be picked are there too.
	tiers []tier
}

// tier is a priority.
type tier struct {
	priority  uint32
	available int // percent of the load that it can carry
	load      int // percent of the load that it gets
	panicking bool
	groups    []group // that hosts may be picked from; one for each locality where there are shares
	split     *Split  // of them; nil where it is one
}

// group is hosts among which the policy alone decides.
type group struct {
	balancer Balancer
	locality model.Locality // where groups are localities
	members  []int          // in the pool's hosts, in order
	whole    bool           // members are all of the pool's hosts
}

// NewPool returns a Pool over hosts, which must not be changed afterwards (but for their Vitals). panics is the percentage
// of healthy hosts below which a priority uses all of them, ejected ones too; 0 is never. From previous, which may be nil,
// balancers take over what New says. It fails where New does.
func NewPool(lb model.LoadBalancer, panics uint32, hosts []*Host, previous *Pool, clock Clock) (*Pool, error) {
	p := &Pool{
		hosts: hosts, lb: lb, panics: int(min(panics, 100)), clock: clock,
		keyed: lb.Policy == model.RingHash || lb.Policy == model.Maglev,
	}
	var former *picture
	if previous != nil {
		former = previous.picture.Load()
	}
	next, err := p.paintOver(former)
	if err != nil {
		return nil, err
	}
	p.picture.Store(next)
	return p, nil
}

// Changed looks again at which hosts are down, or warm by now. It costs a look at each host where nothing changed.
func (p *Pool) Changed() {
	p.paint.Lock()
	defer p.paint.Unlock()
	old := p.picture.Load()
	if !p.outdated(old) {
		return
	}
	// It fails for what NewPool has tried already with more hosts, so never.
	if next, err := p.paintOver(old); err == nil {
		p.picture.Store(next)
	}
}

func (p *Pool) outdated(old *picture) bool {
	for i, h := range p.hosts {
		if h.Down.Load() != old.down[i] {
			return true
		}
	}
	if p.lb.Warmup == nil || len(p.hosts) == 0 {
		return false
	}
	return p.warmUntil() != old.until
}

// warmUntil returns when the last host is warm, 0 where none warms up.
func (p *Pool) warmUntil() int64 {
	if p.lb.Warmup == nil || len(p.hosts) == 0 {
		return 0
	}
	if until, _ := warmAt(p.lb, p.hosts); p.clock() < until {
		return until
	}
	return 0
}

// Panicking says whether hosts are picked although they are down, because too few are not.
func (p *Pool) Panicking() bool {
	return slices.ContainsFunc(p.picture.Load().tiers, func(t tier) bool { return t.panicking && t.load > 0 })
}

// Measures says whether the policy wants to know how long hosts take: only then Vitals.Observe is worth calling.
func (p *Pool) Measures() bool { return p.lb.Policy == model.PeakEWMA }

// Pick returns an index into the hosts that NewPool got, or -1 where none may be picked. Only the hashing policies look at
// k; without a key they pick at random.
func (p *Pool) Pick(k Key, r *Rand) int {
	now := p.picture.Load()
	if g := now.only; g != nil {
		i := g.balancer.Pick(k, r)
		if !g.whole && i >= 0 {
			i = g.members[i]
		}
		return i
	}
	return p.draw(now, k, r, nil, 0)
}

// draws is how often PickOther tries before it looks for any host at all (Istio's hostSelectionRetryMaxAttempts).
const draws = 5

// PickOther picks as Pick does, but, as long as one is left, a host that is not among those that were tried: in a few draws
// by the policy, then any other of the first priority that has one. Where all were tried it picks
// one of them again: -1 means that Pick finds none either. With elsewhere, the priorities of the hosts that were tried are
// left out while there are others, after every second try (Istio's retryRemoteLocalities; Envoy's previous_priorities).
func (p *Pool) PickOther(k Key, r *Rand, tried []int, elsewhere bool) int {
	if len(tried) == 0 {
		return p.Pick(k, r)
	}
	now := p.picture.Load()
	var left []int
	if elsewhere {
		left = tried[:len(tried)&^1]
	}
	last := -1
	for n := range draws {
		if last = p.draw(now, k, r, left, len(tried)+n); last < 0 || !slices.Contains(tried, last) {
			return last
		}
	}
	way := r
	if p.keyed && k.Has { // the same one for the same key
		own := NewRand(k.Hash)
		way = &own
	}
	for _, shunned := range [...]bool{false, true} {
		for t := range now.tiers {
			if p.shuns(&now.tiers[t], left) != shunned {
				continue
			}
			if i := now.tiers[t].untried(way, tried); i >= 0 {
				return i
			}
		}
	}
	return last
}

// untried returns any of the hosts of t that were not tried, -1 where there is none.
func (t *tier) untried(r *Rand, tried []int) int {
	found, n := -1, 0
	for i := range t.groups {
		for _, m := range t.groups[i].members {
			if !slices.Contains(tried, m) {
				if n++; r.N(n) == 0 { // each of n so far is kept with the same chance
					found = m
				}
			}
		}
	}
	return found
}

// shuns says whether one of the hosts that are to be left alone is of the priority.
func (p *Pool) shuns(t *tier, left []int) bool {
	return slices.ContainsFunc(left, func(i int) bool { return p.hosts[i].Priority == t.priority })
}

// draw picks a priority other than those of the hosts in left, a locality, and a host.
func (p *Pool) draw(now *picture, k Key, r *Rand, left []int, attempt int) int {
	if len(now.tiers) == 0 {
		return -1
	}
	t := &now.tiers[0]
	if len(now.tiers) > 1 {
		var x int
		if p.keyed && k.Has {
			x = int(k.Hash % 100) // a key stays with its priority
		} else {
			x = r.N(100)
		}
		t = p.tier(now, x, left)
	}
	if len(t.groups) == 0 {
		return -1
	}
	g := &t.groups[0]
	if t.split != nil {
		g = &t.groups[t.split.Pick(r)]
	}
	var i int
	if b, ok := g.balancer.(*hashing); ok {
		i = b.again(k, r, attempt)
	} else {
		i = g.balancer.Pick(k, r)
	}
	if i < 0 {
		return -1
	}
	return g.members[i]
}

// tier returns the priority that has the x-th percent of the load, left ones having none.
func (p *Pool) tier(now *picture, x int, left []int) *tier {
	whole := 0
	if len(left) > 0 {
		for i := range now.tiers {
			if t := &now.tiers[i]; !p.shuns(t, left) {
				whole += t.available
			}
		}
	}
	if whole == 0 { // none is left out, or all are
		for i := range now.tiers {
			if x -= now.tiers[i].load; x < 0 {
				return &now.tiers[i]
			}
		}
		return &now.tiers[0] // nobody is there
	}
	whole = min(whole, 100)
	var first *tier
	for i := range now.tiers {
		t := &now.tiers[i]
		if t.available == 0 || p.shuns(t, left) {
			continue
		}
		if first == nil {
			first = t
		}
		if x -= 100 * t.available / whole; x < 0 {
			return t
		}
	}
	return first
}

// paintOver makes the picture of this moment, with balancers of the former one, which may be nil, as far as they fit.
func (p *Pool) paintOver(former *picture) (*picture, error) {
	now := &picture{down: make([]bool, len(p.hosts)), until: p.warmUntil()}
	var priorities []uint32
	for i, h := range p.hosts {
		now.down[i] = h.Down.Load()
		if !slices.Contains(priorities, h.Priority) {
			priorities = append(priorities, h.Priority)
		}
	}
	if len(p.hosts) == 0 || p.lb.Policy == model.Original {
		b, err := New(p.lb, nil, nil, p.clock)
		now.only = &group{balancer: b, whole: true}
		return now, err
	}
	slices.Sort(priorities)
	levels := make([]level, len(priorities))
	for i, h := range p.hosts {
		l := &levels[slices.Index(priorities, h.Priority)]
		l.total++
		if !now.down[i] {
			l.healthy++
		}
	}
	a := assign(levels, p.panics)
	now.tiers = make([]tier, len(priorities))
	for i := range now.tiers {
		t := &now.tiers[i]
		*t = tier{priority: priorities[i], available: levels[i].available(), load: a.loads[i], panicking: a.panicking[i]}
		if err := p.fill(t, now.down, former); err != nil {
			return nil, err
		}
		if t.load == 100 && len(t.groups) == 1 {
			now.only = &t.groups[0]
		}
	}
	return now, nil
}

// fill gives t its groups: of the hosts that are up, or all if it panics.
func (p *Pool) fill(t *tier, down []bool, former *picture) error {
	var members []int
	shares := false
	for i, h := range p.hosts {
		if h.Priority == t.priority && (t.panicking || !down[i]) {
			members = append(members, i)
			shares = shares || h.Share > 0
		}
	}
	if len(members) == 0 {
		return nil
	}
	if !shares || t.panicking {
		return p.gather(t, model.Locality{}, members, p.of(members), former)
	}
	parts := p.localities(t, down)
	if p.keyed {
		return p.gatherKeyed(t, parts, former)
	}
	var weights []uint32
	for _, part := range parts {
		if err := p.gather(t, part.locality, part.members, p.of(part.members), former); err != nil {
			return err
		}
		weights = append(weights, part.weight)
	}
	if len(weights) > 1 {
		t.split, _ = NewSplit(weights) // there are some
	}
	return nil
}

// part is a locality that has a share, with its hosts that are up.
type part struct {
	locality       model.Locality
	members        []int
	healthy, total int
	share          uint32
	weight         uint32 // share, as far as hosts are up, of most
}

// most is the weight of the locality that gets most. The others' are in proportion.
const most = 1 << 20

// localities returns those of t that get something, in the order of names. A locality's share shrinks as less than 1/1.4
// of its hosts are up (Envoy's effective locality weight).
func (p *Pool) localities(t *tier, down []bool) []part {
	var all []part
	for i, h := range p.hosts {
		if h.Priority != t.priority || h.Share == 0 {
			continue
		}
		at := slices.IndexFunc(all, func(o part) bool { return o.locality == h.Locality })
		if at < 0 {
			at = len(all)
			all = append(all, part{locality: h.Locality, share: h.Share})
		}
		l := &all[at]
		l.total++
		if !down[i] {
			l.healthy++
			l.members = append(l.members, i)
		}
	}
	all = slices.DeleteFunc(all, func(l part) bool { return l.healthy == 0 })
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.locality.Region, b.locality.Region), cmp.Compare(a.locality.Zone, b.locality.Zone), cmp.Compare(a.locality.SubZone, b.locality.SubZone))
	})
	greatest := 0.0
	effective := func(l *part) float64 {
		return float64(l.share) * min(1, float64(overprovisioning)/100*float64(l.healthy)/float64(l.total))
	}
	for i := range all {
		greatest = max(greatest, effective(&all[i]))
	}
	for i := range all {
		all[i].weight = uint32(max(math.Round(most*effective(&all[i])/greatest), 1))
	}
	return all
}

// gatherKeyed makes one table of all localities, so that a key stays with its host: there a host weighs its locality's
// share divided by the weights in it (Envoy does so too).
func (p *Pool) gatherKeyed(t *tier, parts []part, former *picture) error {
	var members []int
	var hosts []*Host
	for _, part := range parts {
		sum := uint64(0)
		for _, i := range part.members {
			sum += p.hosts[i].weight()
		}
		for _, i := range part.members {
			h := *p.hosts[i]
			h.Weight = uint32(max(uint64(part.weight)*h.weight()/sum, 1))
			members, hosts = append(members, i), append(hosts, &h)
		}
	}
	return p.gather(t, model.Locality{}, members, hosts, former)
}

func (p *Pool) of(members []int) []*Host {
	hosts := make([]*Host, len(members))
	for n, i := range members {
		hosts[n] = p.hosts[i]
	}
	return hosts
}

// gather adds a group to t, of hosts that are the pool's at members.
func (p *Pool) gather(t *tier, l model.Locality, members []int, hosts []*Host, former *picture) error {
	b, err := New(p.lb, hosts, former.balancer(t.priority, l), p.clock)
	if err != nil {
		return err
	}
	t.groups = append(t.groups, group{balancer: b, locality: l, members: members, whole: len(members) == len(p.hosts) && slices.IsSorted(members)})
	return nil
}

// balancer returns what picked among the hosts of a priority and locality; nil where nothing did. p may be nil.
func (p *picture) balancer(priority uint32, l model.Locality) Balancer {
	if p == nil {
		return nil
	}
	for i := range p.tiers {
		if p.tiers[i].priority != priority {
			continue
		}
		for j := range p.tiers[i].groups {
			if p.tiers[i].groups[j].locality == l {
				return p.tiers[i].groups[j].balancer
			}
		}
	}
	return nil
}
