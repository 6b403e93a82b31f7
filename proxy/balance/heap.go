package balance

// entry is what a heap orders.
type entry[E any] interface{ before(E) bool }

// heapify orders entries so that each stands before its two children, at 2i+1 and 2i+2.
func heapify[E entry[E]](heap []E) {
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sink(heap, i)
	}
}

// sink moves the entry at i, which may have become later, down to where it belongs.
func sink[E entry[E]](heap []E, i int) {
	for {
		first := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(heap); c++ {
			if heap[c].before(heap[first]) {
				first = c
			}
		}
		if first == i {
			return
		}
		heap[i], heap[first] = heap[first], heap[i]
		i = first
	}
}
