package hpack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	ref "golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/wire/message"
)

// decodeAll decodes a block as its user does.
func decodeAll(d *Decoder, b []byte) (fields []ref.HeaderField, err error) {
	d.Begin()
	for len(b) > 0 {
		n, ok, err := d.Next(b)
		if err != nil {
			return fields, err
		}
		if ok {
			fields = append(fields, ref.HeaderField{Name: string(d.Field.Name), Value: string(d.Field.Value), Sensitive: d.Field.Private})
		}
		b = b[n:]
	}
	return fields, nil
}

func TestHuffman(t *testing.T) {
	f := func(s string) {
		t.Helper()
		coded := ref.AppendHuffmanString(nil, s)
		got, ok := appendHuffman(nil, coded)
		if !ok || string(got) != s {
			t.Fatalf("%q: got %q, %v", s, got, ok)
		}
	}
	f("")
	for c := range 256 {
		for n := 1; n < 12; n++ {
			f(strings.Repeat(string([]byte{byte(c)}), n))
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			if b[i] = byte(r.Uint32()); r.IntN(3) > 0 {
				b[i] = "abcdefghijklmnopqrstuvwxyz0123456789-/:,.=AB"[int(b[i])%44]
			}
		}
		f(string(b))
	}
}

func TestHuffmanRefused(t *testing.T) {
	f := func(name string, b ...byte) {
		t.Helper()
		if got, ok := appendHuffman(nil, b); ok {
			t.Errorf("%s: accepted as %q", name, got)
		}
	}
	f("padding of eight ones", 0xff)
	f("padding of zeros", 0x18) // 'a' and 000
	f("end of string", 0xff, 0xff, 0xff, 0xff)
	f("end of string, more behind", 0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 0)
	f("more padding than a byte", 0x1f, 0xff)
}

func TestStaticTable(t *testing.T) {
	theirs := ref.NewDecoder(4096, nil)
	for i := 1; i <= staticCount; i++ {
		want, err := theirs.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		f := static[i]
		if string(f.Name) != want[0].Name || string(f.Value) != want[0].Value {
			t.Errorf("%d: %s %s, want %v", i, f.Name, f.Value, want[0])
		}
		if f.Flaw != Sound {
			t.Errorf("%d: %s has flaw %d", i, f.Name, f.Flaw)
		}
		if f.ID != message.Identify(f.Name) {
			t.Errorf("%d: %s has ID %d", i, f.Name, f.ID)
		}
	}
	// Whatever is known to wire/message must have its name here, wherever it came from.
	for i := range message.IDs {
		if id := message.ID(i); string(known(id)) != id.String() {
			t.Errorf("the name of %d is %q, want %q", i, known(message.ID(i)), message.ID(i).String())
		}
	}
}

func TestIntegers(t *testing.T) {
	f := func(prefix uint, v uint32) {
		t.Helper()
		b := appendInteger(nil, 0, prefix, v)
		got, n, err := integer(b, prefix)
		if err != nil || got != v || n != len(b) {
			t.Errorf("%d in %d bits: %d, %d of %d, %v", v, prefix, got, n, len(b), err)
		}
		for i := 1; i < len(b); i++ {
			if _, _, err := integer(b[:i], prefix); !errors.Is(err, ErrTruncated) {
				t.Errorf("%d in %d bits, cut: %v", v, prefix, err)
			}
		}
	}
	for _, p := range []uint{4, 5, 6, 7} {
		for _, v := range []uint32{0, 1, 14, 15, 16, 30, 31, 62, 63, 126, 127, 128, 255, 1337, 16383, 1 << 20, 1<<28 - 1} {
			f(p, v)
		}
	}
	if _, _, err := integer([]byte{0x7f, 0xff, 0xff, 0xff, 0xff, 0x01}, 7); !errors.Is(err, ErrInteger) {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := integer([]byte{0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, 7); !errors.Is(err, ErrInteger) {
		t.Errorf("many zeros: %v", err)
	}
}

func TestRefusedBlocks(t *testing.T) {
	f := func(name string, want error, b ...byte) {
		t.Helper()
		var d Decoder
		d.Init(DefaultTableSize)
		if _, err := decodeAll(&d, b); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	f("index 0", ErrIndex, 0x80)
	f("index behind the tables", ErrIndex, 0x80|62)
	f("name behind the tables", ErrIndex, 0x40|62, 0)
	f("integer cut", ErrTruncated, 0xff)
	f("value missing", ErrTruncated, 0x44)
	f("value cut", ErrTruncated, 0x44, 3, 'a')
	f("name cut", ErrTruncated, 0x40, 3, 'a')
	f("length too large", ErrTruncated, 0x44, 0x7f, 0xff, 0xff, 0x7f)
	f("Huffman", ErrHuffman, 0x44, 0x81, 0xff)
	f("update too large", ErrUpdate, 0x3f, 0xe2, 0x1f)
	f("update behind a field", ErrUpdate, 0x82, 0x20)
}

func TestFlaws(t *testing.T) {
	f := func(name, value string, want Flaw) {
		t.Helper()
		for _, huffman := range []bool{false, true} {
			b := []byte{0x40}
			for _, s := range []string{name, value} {
				if huffman {
					coded := ref.AppendHuffmanString(nil, s)
					b = append(appendInteger(b, 0x80, 7, uint32(len(coded))), coded...)
				} else {
					b = appendString(b, []byte(s))
				}
			}
			var d Decoder
			d.Init(DefaultTableSize)
			for _, block := range [][]byte{b, {0x80 | 62}} { // as a literal, and from the table
				if _, err := decodeAll(&d, block); err != nil {
					t.Fatal(err)
				}
				if d.Field.Flaw != want || string(d.Field.Name) != name || string(d.Field.Value) != value {
					t.Errorf("%q: %q: %+v, want flaw %d", name, value, d.Field, want)
				}
			}
		}
	}
	f("a", "b", Sound)
	f("a", "", Sound)
	f("a", "b \t\xff\x80c", Sound)
	f("content-type", "text/plain; charset=utf-8", Sound)
	f(":path", "/", Sound)
	f("", "b", BadName)
	f("a b", "c", BadName)
	f("a:", "c", BadName)
	f("a\x00", "c", BadName)
	f("\xc3\xa9", "c", BadName)
	f("Content-Type", "c", CapitalOne)
	f("X-a", "c", CapitalOne)
	f("a", " b", PaddedEnds)
	f("a", "b\t", PaddedEnds)
	f("a", "b\r\nc", BadValue)
	f("a", "b\nc", BadValue)
	f("a", "b\x00c", BadValue)
	f("a", "0123456789abc\x7fdef", BadValue)
	f("a", "\t", PaddedEnds)
	f("a", "0123\t567\xff9", Sound)

	// The flaw of an entry's value is not that of another value under its name.
	var d Decoder
	d.Init(DefaultTableSize)
	if _, err := decodeAll(&d, []byte{0x40, 1, 'a', 1, ' ', 0x0f, 62 - 15, 1, 'b'}); err != nil || d.Field.Flaw != Sound {
		t.Errorf("%+v, %v", d.Field, err)
	}
	if _, err := decodeAll(&d, []byte{0x40, 1, 'A', 1, 'b', 0x0f, 62 - 15, 1, 'b'}); err != nil || d.Field.Flaw != CapitalOne {
		t.Errorf("%+v, %v", d.Field, err)
	}
}

// someField returns a field that may be in the tables already, or not.
func someField(r *rand.Rand) ref.HeaderField {
	names := []string{
		"content-type", "x-request-id", "accept", "user-agent", "x-custom", "cookie", "authorization", "etag", "date", "a",
		"x-a-rather-long-name-of-a-header-field-that-is-longer-than-sixty-four-bytes",
	}
	f := ref.HeaderField{Name: names[r.IntN(len(names))], Value: fmt.Sprint("value-", r.IntN(4)), Sensitive: r.IntN(10) == 0}
	switch r.IntN(12) {
	case 0:
		f.Value = strings.Repeat("x", r.IntN(5000))
	case 1:
		f.Value = fmt.Sprint(r.Uint64())
	case 2:
		f.Value = ""
	}
	return f
}

// TestEncoder has x/net's decoder, and ours, read what the encoder writes, with changes of the table's size between.
func TestEncoder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		var e Encoder
		e.Init()
		var d Decoder
		d.Init(65536)
		theirs := ref.NewDecoder(DefaultTableSize, nil)
		theirs.SetAllowedMaxDynamicTableSize(65536)
		hits := 0
		for range 200 {
			for range r.IntN(3) * r.IntN(2) {
				e.SetLimit(uint32([]int{0, 40, 100, 1000, 4096, 65536}[r.IntN(6)]))
			}
			want := []ref.HeaderField{}
			b := e.Begin(nil)
			for range r.IntN(4) {
				switch r.IntN(4) {
				case 0:
					p := fmt.Sprint("/path/", r.IntN(4))
					b = e.AppendPseudo(b, Path, []byte(p))
					want = append(want, ref.HeaderField{Name: ":path", Value: p})
				case 1:
					p := fmt.Sprint("/path/", r.IntN(4))
					b = e.AppendPath(b, []byte(p), []byte("?a=b"))
					want = append(want, ref.HeaderField{Name: ":path", Value: p + "?a=b"})
				case 2:
					m := []string{"GET", "POST", "DELETE"}[r.IntN(3)]
					b = e.AppendPseudo(b, Method, []byte(m))
					want = append(want, ref.HeaderField{Name: ":method", Value: m})
				default:
					s := []int{200, 204, 206, 304, 400, 404, 500, 503, 103}[r.IntN(9)]
					b = e.AppendStatus(b, s)
					want = append(want, ref.HeaderField{Name: ":status", Value: fmt.Sprint(s)})
				}
			}
			for range r.IntN(12) {
				f := someField(r)
				before := len(b)
				name := f.Name
				if r.IntN(4) == 0 {
					name = strings.ToUpper(name)
				}
				id := message.IdentifyString(f.Name)
				b = e.Append(b, id, []byte(name), []byte(f.Value), f.Sensitive)
				if len(b)-before <= 2 {
					hits++
				}
				f.Sensitive = f.Sensitive || id == message.Cookie || id == message.Authorization || len(name) > longestLower
				want = append(want, f)
			}
			got, err := theirs.DecodeFull(b)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := decodeAll(&d, b)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
				t.Fatalf("theirs: %v\nwant: %v", got, want)
			}
			if fmt.Sprint(ours) != fmt.Sprint(want) {
				t.Fatalf("ours: %v\nwant: %v", ours, want)
			}
		}
		if hits < 10 {
			t.Errorf("only %d fields came from the table", hits)
		}
	}
}

// TestDecoder reads what x/net's encoder writes.
func TestDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var out bytes.Buffer
		theirs := ref.NewEncoder(&out)
		theirs.SetMaxDynamicTableSizeLimit(DefaultTableSize)
		var d Decoder
		d.Init(DefaultTableSize)
		for range 200 {
			out.Reset()
			for range r.IntN(3) * r.IntN(2) {
				theirs.SetMaxDynamicTableSize(uint32([]int{0, 40, 100, 1000, 4096}[r.IntN(5)]))
			}
			want := []ref.HeaderField{}
			for range 1 + r.IntN(12) {
				f := someField(r)
				if err := theirs.WriteField(f); err != nil {
					t.Fatal(err)
				}
				want = append(want, f)
			}
			got, err := decodeAll(&d, out.Bytes())
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, want)
			}
			if n := cap(d.table.buf); n > DefaultTableSize+DefaultTableSize/3 {
				t.Fatalf("the table holds %d bytes", n)
			}
		}
	}
}

// FuzzDecode compares the decoder with x/net's: two blocks, one after the other, on one connection.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff}, []byte{0x80 | 62, 0x3f, 0x11})
	f.Add([]byte{0x40, 1, 'a', 1, 'b', 0x7f, 0, 1, 'c', 0x10, 1, 'd', 0x81, 0x1f}, []byte{0x20, 0xbe, 0xbf, 0x20, 0x3f, 0x21})
	f.Add([]byte{0x0f, 47, 1, 'x'}, []byte{0x7e, 3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var d Decoder
		d.Init(DefaultTableSize)
		theirs := ref.NewDecoder(DefaultTableSize, nil)
		for _, b := range [][]byte{one, two} {
			want, err1 := theirs.DecodeFull(b)
			got, err2 := decodeAll(&d, b)
			if err1 != nil && err2 != nil {
				return
			}
			if errors.Is(err2, ErrInteger) || errors.Is(err2, ErrUpdate) {
				return // we are stricter about very large integers, and updates between fields
			}
			if (err1 == nil) != (err2 == nil) {
				t.Fatalf("theirs %v, ours %v", err1, err2)
			}
			if fmt.Sprint(want) != fmt.Sprint(got) {
				t.Fatalf("theirs %v, ours %v", want, got)
			}
		}
	})
}

// meshFields are those of a request between services, in the order that a client sends.
var meshFields = []ref.HeaderField{
	{Name: "user-agent", Value: "grpc-go/1.83.2"},
	{Name: "accept", Value: "application/json"},
	{Name: "content-type", Value: "application/json"},
	{Name: "x-request-id", Value: "5f9fdb1e-5c2b-4ee5-8f3a-2a1a6f6d7b1c"},
	{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	{Name: "x-forwarded-proto", Value: "http"},
	{Name: "x-custom", Value: "something of the application"},
	{Name: "accept-encoding", Value: "gzip"},
}

func BenchmarkEncode(b *testing.B) {
	var e Encoder
	e.Init()
	type field struct {
		id          message.ID
		name, value []byte
	}
	var fields []field
	for _, f := range meshFields {
		fields = append(fields, field{message.IdentifyString(f.Name), []byte(f.Name), []byte(f.Value)})
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = e.Begin(dst[:0])
		dst = e.AppendPseudo(dst, Method, []byte("GET"))
		dst = e.AppendPath(dst, []byte("/reviews/1"), nil)
		for i := range fields {
			f := &fields[i]
			dst = e.Append(dst, f.id, f.name, f.value, false)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	f := func(name string, block []byte) {
		b.Run(name, func(b *testing.B) {
			var d Decoder
			d.Init(DefaultTableSize)
			b.ReportAllocs()
			for b.Loop() {
				d.Begin()
				for rest := block; len(rest) > 0; {
					n, _, err := d.Next(rest)
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
		b.Run(name+"-xnet", func(b *testing.B) {
			d := ref.NewDecoder(DefaultTableSize, func(ref.HeaderField) {})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Write(block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	var plain, huffman []byte
	for _, h := range meshFields {
		plain = appendString(appendString(append(plain, 0), []byte(h.Name)), []byte(h.Value))
		huffman = append(huffman, 0)
		for _, s := range []string{h.Name, h.Value} {
			coded := ref.AppendHuffmanString(nil, s)
			huffman = append(appendInteger(huffman, 0x80, 7, uint32(len(coded))), coded...)
		}
	}
	f("plain", plain)
	f("huffman", huffman)
}
