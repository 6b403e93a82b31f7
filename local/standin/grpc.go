package standin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// instanceHeader says which stand-in answers, where the answer itself cannot: NAMESPACE/INSTANCE.
const instanceHeader = "outrider-instance"

// What Repeat does unless asked otherwise, and at most.
const (
	repeatCount    = 5
	repeatInterval = 100 * time.Millisecond
	mostRepeats    = 10000
	mostInterval   = time.Minute
)

// speaksGRPC says whether the request is one of gRPC's, by its content type; gRPC-Web is not.
func speaksGRPC(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// serveGRPC answers a request of gRPC. The protocol's own services, health and reflection, do not misbehave.
func (h *handler) serveGRPC(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/grpc.") {
		behaviour, err := h.behaviour(r.Header)
		if err != nil {
			refuse(w, codes.InvalidArgument, err.Error())
			return
		}
		if behaviour.strikes() {
			if !pause(r.Context(), behaviour.Delay) {
				return
			}
			if code := behaviour.grpc(); code != codes.OK {
				refuse(w, code, fmt.Sprintf("stand-in %s was told to answer status=%d", h.app.name(), behaviour.Status))
				return
			}
		}
	}
	h.making.Do(func() { h.grpc = h.newGRPC() })
	h.grpc.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), received{}, r)))
}

// refuse answers with headers alone, as gRPC servers do that fail before they say anything: retries can see the status.
func refuse(w http.ResponseWriter, code codes.Code, message string) {
	header := w.Header()
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(int(code)))
	header.Set("Grpc-Message", url.PathEscape(message))
}

// received is the key of the *http.Request in the context of a call: grpc-go's metadata lacks some of its fields.
type received struct{}

func requestOf(ctx context.Context) *http.Request {
	return ctx.Value(received{}).(*http.Request)
}

// newGRPC makes the gRPC server of one port.
func (h *handler) newGRPC() *grpc.Server {
	s := grpc.NewServer(grpc.UnknownServiceHandler(h.answerAnything), grpc.WaitForHandlers(true))
	stream := func(name string, handle grpc.StreamHandler, takesStream, givesStream bool) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, Handler: handle, ClientStreams: takesStream, ServerStreams: givesStream}
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: h.echo}},
		Streams: []grpc.StreamDesc{
			stream("Repeat", h.repeat, false, true), stream("Collect", h.collect, true, false), stream("Chat", h.chat, true, true),
		},
		Metadata: schema().file.Path(),
	}, nil)
	grpc_health_v1.RegisterHealthServer(s, &health{handler: h})
	options := reflection.ServerOptions{Services: s, DescriptorResolver: catalogue{}}
	grpc_reflection_v1.RegisterServerReflectionServer(s, reflection.NewServerV1(options))
	grpc_reflection_v1alpha.RegisterServerReflectionServer(s, reflection.NewServer(options))
	return s
}

// catalogue finds what echo.proto describes, and what is registered.
type catalogue struct{}

func (catalogue) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := schema().files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (catalogue) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := schema().files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// echo is the method Echo.
func (h *handler) echo(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := schema().newRequest()
	if err := decode(in); err != nil {
		return nil, err
	}
	return h.answer(ctx, in, 1, true), nil
}

// repeat is the method Repeat.
func (h *handler) repeat(_ any, stream grpc.ServerStream) error {
	in := schema().newRequest()
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	count, interval := int(get(in, "count").Int()), repeatInterval
	switch {
	case count == 0:
		count = repeatCount
	case count < 0 || count > mostRepeats:
		return status.Errorf(codes.InvalidArgument, "count is %d: it is 1 to %d, or 0 for %d", count, mostRepeats, repeatCount)
	}
	if in.Has(fieldOf(in, "interval")) {
		d := get(in, "interval").Message()
		seconds, nanos := get(d, "seconds").Int(), get(d, "nanos").Int()
		if seconds < 0 || nanos < 0 || nanos > 999_999_999 || seconds > int64(mostInterval/time.Second) {
			return status.Errorf(codes.InvalidArgument, "interval is not between 0 and %v", mostInterval)
		}
		interval = time.Duration(seconds)*time.Second + time.Duration(nanos)
	}
	for i := range count {
		if i > 0 && !pause(stream.Context(), interval) {
			return status.FromContextError(stream.Context().Err()).Err()
		}
		if err := stream.SendMsg(h.answer(stream.Context(), in, i+1, i == 0)); err != nil {
			return err
		}
	}
	return nil
}

// collect is the method Collect.
func (h *handler) collect(_ any, stream grpc.ServerStream) error {
	last, n := schema().newRequest(), 0
	for {
		in := schema().newRequest()
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return stream.SendMsg(h.answer(stream.Context(), last, n, true))
		}
		if err != nil {
			return err
		}
		last, n = in, min(n+1, math.MaxInt32)
	}
}

// chat is the method Chat.
func (h *handler) chat(_ any, stream grpc.ServerStream) error {
	for n := 1; ; n = min(n+1, math.MaxInt32) {
		in := schema().newRequest()
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(h.answer(stream.Context(), in, n, n == 1)); err != nil {
			return err
		}
	}
}

// answerAnything is every method of every other service: a stand-in answers any path. An empty message is one of any
// type; each of the request's is answered with one.
func (h *handler) answerAnything(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if strings.HasPrefix(method, "/grpc.") || strings.HasPrefix(method, "/"+echoService+"/") {
		return status.Errorf(codes.Unimplemented, "stand-ins have no method %s", method)
	}
	if err := stream.SetHeader(metadata.Pairs(instanceHeader, h.app.name())); err != nil {
		return err
	}
	for n := 0; ; n++ {
		err := stream.RecvMsg(new(emptypb.Empty)) // which keeps any field as one that it does not know
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return stream.SendMsg(new(emptypb.Empty))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(new(emptypb.Empty)); err != nil {
			return err
		}
	}
}

// answer makes the EchoResponse to a message, and calls on for it where calls says so.
func (h *handler) answer(ctx context.Context, in *dynamicpb.Message, sequence int, calls bool) *dynamicpb.Message {
	r, o, out := requestOf(ctx), &h.app.o, schema().newResponse()
	text := func(name protoreflect.Name, value string) {
		out.Set(fieldOf(out, name), protoreflect.ValueOfString(valid(value)))
	}
	number := func(name protoreflect.Name, value int) {
		out.Set(fieldOf(out, name), protoreflect.ValueOfInt32(int32(value))) //nolint:gosec // ports, and what is bounded by MaxInt32
	}
	text("message", get(in, "message").String())
	number("sequence", sequence)
	text("workload", o.Workload)
	text("namespace", o.Namespace)
	text("instance", o.Instance)
	text("version", o.Version)
	number("port", h.port)
	text("method", r.Method)
	text("host", r.Host)
	text("path", r.RequestURI)
	headers := out.Mutable(fieldOf(out, "headers")).Map()
	for name, values := range r.Header {
		headers.Set(protoreflect.ValueOfString(valid(strings.ToLower(name))).MapKey(), protoreflect.ValueOfString(valid(joined(name, values))))
	}
	if !calls {
		return out
	}
	nested := out.Mutable(fieldOf(out, "calls")).List()
	for _, target := range h.app.Role().Calls {
		v := new(structpb.Value)
		if err := v.UnmarshalJSON(h.call(ctx, nil, r.Header, target)); err != nil {
			v = structpb.NewStringValue(fmt.Sprintf("cannot tell what %s answered: %v", target, err))
		}
		nested.Append(protoreflect.ValueOfMessage(v.ProtoReflect()))
	}
	return out
}

// valid is s with U+FFFD for each byte that is not UTF-8, which a message cannot hold.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
