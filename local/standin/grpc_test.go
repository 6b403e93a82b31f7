package standin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// echoed is an EchoResponse as protobuf's JSON writes it.
type echoed struct {
	answer
	Message  string
	Sequence int
}

// dial connects a gRPC client to a port of the stand-in, which speaks to it as the service says.
func dial(t *testing.T, a *App, port int, service string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+a.Address(port), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(service), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ask(message string) *dynamicpb.Message {
	m := schema().newRequest()
	m.Set(fieldOf(m, "message"), protoreflect.ValueOfString(message))
	return m
}

func read(t *testing.T, m proto.Message) (e echoed) {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return e
}

// unary calls Echo, whose fields of metadata are in pairs.
func unary(t *testing.T, conn *grpc.ClientConn, pairs ...string) (echoed, error) {
	t.Helper()
	out := schema().newResponse()
	if err := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), pairs...), echoMethod, ask("hello"), out); err != nil {
		return echoed{}, err
	}
	return read(t, out), nil
}

func open(t *testing.T, conn *grpc.ClientConn, method string, client, server bool) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: client, ServerStreams: server}, method)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func receive(t *testing.T, stream grpc.ClientStream) echoed {
	t.Helper()
	out := schema().newResponse()
	if err := stream.RecvMsg(out); err != nil {
		t.Fatal(err)
	}
	return read(t, out)
}

func TestGRPCAnswerTellsWhatHTTPsDoes(t *testing.T) {
	a := start(t, web("reviews-v1-0"), Role{},
		Port{Port: 9080, Protocol: model.GRPC}, Port{Port: 9081, Protocol: model.HTTP2}, Port{Port: 9082, Protocol: model.Auto})
	for port := 9080; port <= 9082; port++ {
		e, err := unary(t, dial(t, a, port, "reviews:9080"), "x-request-id", "7", "x-two", "a", "x-two", "b", "cookie", "a=1", "cookie", "b=2")
		if err != nil {
			t.Fatal(err)
		}
		if e.Message != "hello" || e.Sequence != 1 {
			t.Errorf("echo of hello: %+v", e)
		}
		if e.Workload != "reviews-v1" || e.Namespace != "default" || e.Instance != "reviews-v1-0" || e.Version != "v1" || e.Port != port {
			t.Errorf("who answers: %+v", e)
		}
		if e.Method != "POST" || e.Host != "reviews:9080" || e.Path != "/outrider.echo.v1.Echo/Echo" {
			t.Errorf("request: %+v", e)
		}
		for name, want := range map[string]string{
			"x-request-id": "7", "x-two": "a, b", "cookie": "a=1; b=2", "content-type": "application/grpc", "te": "trailers",
		} {
			if e.Headers[name] != want {
				t.Errorf("header %s: %q, want %q", name, e.Headers[name], want)
			}
		}
	}
}

func TestOnePortSpeaksAll(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC}, Port{Port: 2, Protocol: model.HTTP})
	for _, p := range []func(*http.Protocols){http1, h2c} {
		// The first is HTTP/1.1, where no gRPC is; the second carries gRPC-Web, which is not gRPC.
		resp, body := do(t, request(t, "GET", "http://"+a.Address(1)+"/", "Content-Type: application/grpc-web"), p)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || !json.Valid(body) {
			t.Errorf("%s: %s", resp.Status, body)
		}
	}
	resp, body := do(t, request(t, "POST", "http://"+a.Address(1)+echoMethod, "Content-Type: application/grpc"), http1)
	if resp.StatusCode != 200 || !json.Valid(body) {
		t.Errorf("gRPC's content type on HTTP/1.1: %s %s", resp.Status, body)
	}
	if _, err := unary(t, dial(t, a, 1, "i")); err != nil {
		t.Error(err)
	}
	if _, err := unary(t, dial(t, a, 2, "i")); status.Code(err) != codes.Unavailable {
		t.Errorf("a port of HTTP/1.1 answers gRPC: %v", err)
	}
}

func TestStreams(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	conn := dial(t, a, 1, "i")

	repeat := func(count int32, interval *durationpb.Duration) grpc.ClientStream {
		in := ask("again")
		in.Set(fieldOf(in, "count"), protoreflect.ValueOfInt32(count))
		if interval != nil {
			b, err := proto.Marshal(interval)
			if err == nil {
				err = proto.Unmarshal(b, in.Mutable(fieldOf(in, "interval")).Message().Interface())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		stream := open(t, conn, "/"+echoService+"/Repeat", false, true)
		if err := errors.Join(stream.SendMsg(in), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stream := repeat(3, durationpb.New(0))
	for i := range 3 {
		if e := receive(t, stream); e.Message != "again" || e.Sequence != i+1 || e.Path != "/outrider.echo.v1.Echo/Repeat" {
			t.Errorf("answer %d: %+v", i, e)
		}
	}
	if err := stream.RecvMsg(schema().newResponse()); !errors.Is(err, io.EOF) {
		t.Errorf("after three answers: %v", err)
	}
	const interval = 20 * time.Millisecond
	before, n := time.Now(), 0
	for stream := repeat(0, durationpb.New(interval)); ; n++ {
		if err := stream.RecvMsg(schema().newResponse()); err != nil {
			break
		}
	}
	if took := time.Since(before); n != repeatCount || took < (repeatCount-1)*interval {
		t.Errorf("%d answers in %v", n, took)
	}
	for _, stream := range []grpc.ClientStream{
		repeat(-1, nil), repeat(mostRepeats+1, nil), repeat(1, durationpb.New(-time.Second)), repeat(1, durationpb.New(2*time.Minute)),
	} {
		if err := stream.RecvMsg(schema().newResponse()); status.Code(err) != codes.InvalidArgument {
			t.Errorf("what cannot be repeated so: %v", err)
		}
	}

	collect := open(t, conn, "/"+echoService+"/Collect", true, false)
	for i := range 4 {
		if err := collect.SendMsg(ask(fmt.Sprint("message ", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := collect.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, collect); e.Sequence != 4 || e.Message != "message 3" {
		t.Errorf("of four messages: %+v", e)
	}

	chat := open(t, conn, "/"+echoService+"/Chat", true, true)
	for i := range 3 { // each is answered while the client still has more to say
		if err := chat.SendMsg(ask(fmt.Sprint("line ", i))); err != nil {
			t.Fatal(err)
		}
		if e := receive(t, chat); e.Sequence != i+1 || e.Message != fmt.Sprint("line ", i) {
			t.Errorf("line %d: %+v", i, e)
		}
	}
	if err := chat.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := chat.RecvMsg(schema().newResponse()); !errors.Is(err, io.EOF) {
		t.Errorf("after the client's end: %v", err)
	}
}

func TestAnyMethodIsAnswered(t *testing.T) {
	a := start(t, web("cart-0"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	conn := dial(t, a, 1, "cart")
	var head metadata.MD
	out := wrapperspb.String("was not touched")
	if err := conn.Invoke(t.Context(), "/acme.Cart/Get", wrapperspb.String("id"), out, grpc.Header(&head), grpc.UseCompressor(gzip.Name)); err != nil || out.Value != "" {
		t.Fatalf("%v, %v", out, err)
	}
	if got := head.Get(instanceHeader); !slices.Equal(got, []string{"default/cart-0"}) {
		t.Errorf("who answers: %v", head)
	}
	chat := open(t, conn, "/acme.Cart/Watch", true, true)
	for range 2 {
		if err := errors.Join(chat.SendMsg(wrapperspb.Int64(7)), chat.RecvMsg(new(wrapperspb.Int64Value))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(chat.CloseSend(), chat.RecvMsg(new(emptypb.Empty))); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	silent := open(t, conn, "/acme.Cart/Put", true, false)
	if err := errors.Join(silent.CloseSend(), silent.RecvMsg(new(emptypb.Empty))); err != nil {
		t.Errorf("a request without a message: %v", err)
	}
	for _, method := range []string{"/grpc.lb.v1.LoadBalancer/BalanceLoad", "/" + echoService + "/Shout"} {
		if err := conn.Invoke(t.Context(), method, new(emptypb.Empty), new(emptypb.Empty)); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestGRPCMisbehaviour(t *testing.T) {
	a := start(t, web("i"), Role{Behaviour: Behaviour{Status: 503}}, Port{Port: 1, Protocol: model.GRPC})
	conn := dial(t, a, 1, "i")
	f := func(want codes.Code, asked ...string) {
		t.Helper()
		var pairs []string
		for _, s := range asked {
			pairs = append(pairs, "outrider-stand-in", s)
		}
		if _, err := unary(t, conn, pairs...); status.Code(err) != want {
			t.Errorf("asked for %q: %v, want %v", asked, err, want)
		}
	}
	f(codes.Unavailable)
	f(codes.OK, "status=200")
	f(codes.Unauthenticated, "status=401")
	f(codes.PermissionDenied, "status=403")
	f(codes.Unimplemented, "status=404")
	f(codes.Unavailable, "status=429")
	f(codes.Unavailable, "status=504")
	f(codes.Internal, "status=400")
	f(codes.Unknown, "status=500")
	f(codes.Unknown, "status=201")
	f(codes.DataLoss, "status=15")
	f(codes.Aborted, "status=10", "delay=1ms")
	f(codes.InvalidArgument, "colour=red")
	_, err := unary(t, conn)
	if want := "stand-in default/i was told to answer status=503"; status.Convert(err).Message() != want {
		t.Errorf("message %q, want %q", status.Convert(err).Message(), want)
	}

	a.SetBehaviour(Behaviour{Delay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := conn.Invoke(ctx, echoMethod, ask(""), schema().newResponse()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("delayed: %v", err)
	}
	a.SetBehaviour(Behaviour{})
	f(codes.OK)
}

// post sends an empty message to Echo, as bytes.
func post(t *testing.T, a *App, fields ...string) (*http.Response, []byte) {
	t.Helper()
	req := request(t, "POST", "http://"+a.Address(1)+echoMethod, append(fields, "Content-Type: application/grpc+proto", "Te: trailers")...)
	req.Body = io.NopCloser(bytes.NewReader([]byte{0, 0, 0, 0, 0}))
	return do(t, req, h2c)
}

func TestGRPCFrames(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	resp, body := post(t, a, "X-Odd: q\xff\"")
	if len(body) < 5 || resp.Header.Get("Grpc-Status") != "" || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Fatalf("%v, trailers %v, body %q", resp.Header, resp.Trailer, body)
	}
	out := schema().newResponse()
	if err := proto.Unmarshal(body[5:], out); err != nil {
		t.Fatal(err)
	}
	if e := read(t, out); e.Headers["x-odd"] != "q\ufffd\"" {
		t.Errorf("a field that is not UTF-8: %q", e.Headers["x-odd"])
	}
}

// TestRefusalIsHeadersAlone: only then may a proxy look at the status before it passes the answer on.
func TestRefusalIsHeadersAlone(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	resp, body := post(t, a, "Outrider-Stand-In: status=14")
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || len(body) != 0 || len(resp.Trailer) != 0 {
		t.Errorf("%s %v, trailers %v, body %q", resp.Status, resp.Header, resp.Trailer, body)
	}
}

func TestHealth(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	client := grpc_health_v1.NewHealthClient(dial(t, a, 1, "i"))
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus, pairs ...string) {
		t.Helper()
		for _, service := range []string{"", echoService, "acme.Cart"} {
			got, err := client.Check(metadata.AppendToOutgoingContext(t.Context(), pairs...), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil || got.Status != want {
				t.Errorf("%q is %v, %v; want %v", service, got.GetStatus(), err, want)
			}
		}
	}
	const serving, failing = grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING
	check(serving)
	check(failing, "outrider-stand-in", "status=500")

	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.Status != want {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
	}
	next(serving)
	a.SetBehaviour(Behaviour{Delay: time.Millisecond}) // is no failure
	a.SetBehaviour(Behaviour{Status: 14, Ratio: 0.01})
	next(failing)
	check(failing)
	a.SetRole(Role{})
	next(serving)
	list, err := client.List(t.Context(), &grpc_health_v1.HealthListRequest{})
	if err != nil || len(list.Statuses) != 2 || list.Statuses[echoService].GetStatus() != serving {
		t.Errorf("%v, %v", list, err)
	}
	if err := a.Unserve(t.Context(), 1); err != nil { // which waits for what is under way, but not for a watch
		t.Fatal(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the port has ended: %v", err)
	}
}

func TestReflection(t *testing.T) {
	a := start(t, web("i"), Role{Behaviour: Behaviour{Status: 503}}, Port{Port: 1, Protocol: model.GRPC})
	conn := dial(t, a, 1, "i")
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "outrider.echo.v1.Echo",
	}

	v1, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := v1.Send(r); err != nil {
			t.Fatal(err)
		}
		got, err := v1.Recv()
		if err != nil || got.GetErrorResponse() != nil {
			t.Fatal(got, err)
		}
		return got
	}
	var names []string
	for _, s := range ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().Service {
		names = append(names, s.Name)
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("services %v", names)
	}
	files := &descriptorpb.FileDescriptorSet{}
	for _, b := range ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: echoService},
	}).GetFileDescriptorResponse().FileDescriptorProto {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(b, file); err != nil {
			t.Fatal(err)
		}
		files.File = append(files.File, file)
	}
	known, err := protodesc.NewFiles(files) // which fails where something that it imports is missing
	if err != nil {
		t.Fatal(err)
	}
	d, err := known.FindDescriptorByName(echoService)
	if err != nil || d.(protoreflect.ServiceDescriptor).Methods().Len() != 4 {
		t.Errorf("%v, %v", d, err)
	}
	ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "grpc.health.v1.Health"},
	})

	alpha, err := grpc_reflection_v1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The version is deprecated, but older clients ask for it alone.
	//lint:ignore SA1019 as said
	question := &grpc_reflection_v1alpha.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{},
	}
	if err := alpha.Send(question); err != nil {
		t.Fatal(err)
	}
	got, err := alpha.Recv()
	//lint:ignore SA1019 as said
	if err != nil || len(got.GetListServicesResponse().GetService()) != len(want) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestSchemaIsTheProtoFile writes the schema as a .proto file and compares it with echo.proto.
func TestSchemaIsTheProtoFile(t *testing.T) {
	text, err := os.ReadFile("echo.proto")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "//")
		if line = strings.TrimSpace(line); line != "" {
			want = append(want, line)
		}
	}
	file := schema().file
	got := []string{`syntax = "` + file.Syntax().String() + `";`, "package " + string(file.Package()) + ";"}
	for i := range file.Imports().Len() {
		got = append(got, `import "`+file.Imports().Get(i).Path()+`";`)
	}
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		got = append(got, "service "+string(s.Name())+" {")
		stream := map[bool]string{true: "stream "}
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			got = append(got, fmt.Sprintf("rpc %s(%s%s) returns (%s%s);", m.Name(),
				stream[m.IsStreamingClient()], m.Input().Name(), stream[m.IsStreamingServer()], m.Output().Name()))
		}
		got = append(got, "}")
	}
	kind := func(f protoreflect.FieldDescriptor) string {
		switch {
		case f.Message() == nil:
			return f.Kind().String()
		case f.Message().ParentFile() == file:
			return string(f.Message().Name())
		}
		return string(f.Message().FullName())
	}
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		got = append(got, "message "+string(m.Name())+" {")
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			of := kind(f)
			switch {
			case f.IsMap():
				of = "map<" + kind(f.MapKey()) + ", " + kind(f.MapValue()) + ">"
			case f.IsList():
				of = "repeated " + of
			}
			got = append(got, fmt.Sprintf("%s %s = %d;", of, f.Name(), f.Number()))
		}
		got = append(got, "}")
	}
	if !slices.Equal(got, want) {
		t.Errorf("the schema is\n%s\n\necho.proto is\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestGRPCurl(t *testing.T) {
	grpcurl, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Skip("grpcurl is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3")
	}
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	run := func(arguments ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), grpcurl, append([]string{"-plaintext"}, arguments...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", arguments, err, out)
		}
		return string(out)
	}
	if got := run(a.Address(1), "list"); !strings.Contains(got, "outrider.echo.v1.Echo\n") {
		t.Errorf("list: %s", got)
	}
	if got := run(a.Address(1), "describe", "outrider.echo.v1.Echo.Chat"); !strings.Contains(got, "stream .outrider.echo.v1.EchoRequest") {
		t.Errorf("describe: %s", got)
	}
	var e echoed
	if err := json.Unmarshal([]byte(run("-authority", "reviews:9080", "-d", `{"message":"hi"}`, a.Address(1), "outrider.echo.v1.Echo/Echo")), &e); err != nil || e.Message != "hi" || e.Host != "reviews:9080" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := run(a.Address(1), "grpc.health.v1.Health/Check"); !strings.Contains(got, "SERVING") {
		t.Errorf("health: %s", got)
	}
}

// TestUnserveLetsStreamsEnd: what is under way goes on while there is time.
func TestUnserveLetsStreamsEnd(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	address := a.Address(1)
	chat := open(t, dial(t, a, 1, "i"), "/"+echoService+"/Chat", true, true)
	say := func(message string) {
		t.Helper()
		if err := chat.SendMsg(ask(message)); err != nil {
			t.Fatal(err)
		}
		if e := receive(t, chat); e.Message != message {
			t.Fatalf("%q came back as %q", message, e.Message)
		}
	}
	say("before")
	ended := make(chan error, 1)
	go func() { ended <- a.Unserve(t.Context(), 1) }()
	for { // until nobody new is let in
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
	}
	say("after")
	select {
	case err := <-ended:
		t.Fatalf("the port has ended before the stream: %v", err)
	default:
	}
	if err := chat.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := chat.RecvMsg(schema().newResponse()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestShutdownEndsStreams: what is under way when the time is up is cut off, and waited for.
func TestShutdownEndsStreams(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.GRPC})
	chat := open(t, dial(t, a, 1, "i"), "/"+echoService+"/Chat", true, true)
	if err := chat.SendMsg(ask("")); err != nil {
		t.Fatal(err)
	}
	receive(t, chat)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := chat.RecvMsg(schema().newResponse()); status.Code(err) != codes.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}
