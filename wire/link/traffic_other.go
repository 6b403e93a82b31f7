//go:build unix && !linux

package link

func traffic(int) (Traffic, bool) { return Traffic{}, false }

func used(int) (Traffic, bool) { return Traffic{}, false }

func halfClosed(int) bool { return false }
