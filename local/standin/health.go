package standin

import (
	"context"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health is grpc.health.v1.Health of one port. A stand-in plays any service, so it knows any service's name: all are
// SERVING, unless it was told to misbehave with a status, however seldom.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	handler *handler
}

// servingStatus is what a stand-in that behaves so says of itself.
func servingStatus(b Behaviour) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if b.Status == 0 || b.Status == http.StatusOK {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// Check is the method of that name.
func (h *health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	b, err := h.handler.behaviour(requestOf(ctx).Header)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &grpc_health_v1.HealthCheckResponse{Status: servingStatus(b)}, nil
}

// List is the method of that name.
func (h *health) List(ctx context.Context, _ *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	one, err := h.Check(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &grpc_health_v1.HealthListResponse{Statuses: map[string]*grpc_health_v1.HealthCheckResponse{"": one, echoService: one}}, nil
}

// Watch is the method of that name. It ends with the port, not only with its client.
func (h *health) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	said := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		part := h.handler.app.role.Load()
		if now := servingStatus(part.Behaviour); now != said {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			said = now
		}
		select {
		case <-part.over:
		case <-h.handler.leaving:
			return status.Errorf(codes.Unavailable, "stand-in %s ends", h.handler.app.name())
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
