//go:build linux

package main

import (
	"fmt"
	"strings"

	"github.com/outrider-mesh/outrider/bench/load"
)

// kind is a request and its answer.
type kind struct {
	name, title string
	answer      int // bytes of the answer's body
	body        int // bytes of the request's body
}

var kinds = []kind{
	{name: "get-300B", title: "GET, 300 B answer", answer: 300},
	{name: "get-16K", title: "GET, 16 KiB answer", answer: 16 << 10},
	{name: "post-1K", title: "POST of 1 KiB, 300 B answer", answer: 300, body: 1 << 10},
}

var connectionCounts = []int{16, 64, 256}

// scenario is one case: a kind of request on a number of connections.
type scenario struct {
	kind
	name  string
	conns int
}

func allCases() []scenario {
	var all []scenario
	for _, k := range kinds {
		for _, n := range connectionCounts {
			all = append(all, scenario{kind: k, name: fmt.Sprintf("%s/%d", k.name, n), conns: n})
		}
	}
	return all
}

// request is the same for every proxy, byte for byte: what a service's HTTP client would send to another service.
func (k kind) request() load.Request {
	method, length := "GET", ""
	if k.body > 0 {
		method, length = "POST", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", k.body)
	}
	head := fmt.Sprintf("%s /api/v1/reviews/%d HTTP/1.1\r\n", method, k.answer) +
		"Host: " + serviceHost + ":" + servicePort + "\r\n" +
		"User-Agent: storefront/2.4 (linux; go1.26)\r\n" +
		"Accept: application/json, text/plain;q=0.8\r\n" +
		"Accept-Language: en-GB,en;q=0.7\r\n" +
		"Cookie: session=1f6d0cbb5e2a4e7e9b8d; region=eu\r\n" +
		"Authorization: Bearer c2Vzc2lvbi10b2tlbi1mb3ItbWVhc3VyZW1lbnRz\r\n" +
		"X-Tenant: blue\r\n" +
		"Cache-Control: no-cache\r\n" + length + "\r\n"
	body := strings.Repeat(`{"stars":5,"text":"as described"}`, k.body/33+1)[:k.body]
	return load.Request{Bytes: []byte(head + body), Answer: k.answer}
}

// answerSizes are the answers that the backend prepares.
func answerSizes() []int {
	var all []int
	for _, k := range kinds {
		all = append(all, k.answer)
	}
	return all
}
