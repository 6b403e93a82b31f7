//go:build unix && !linux

package link

func traffic(int) (Traffic, bool) { return Traffic{}, false }
