package migrate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
)

// The shapes in which teams have written these properties: nested, dotted, in flow style, misplaced, misspelt, with placeholders, with
// what other libraries read beside them.
var (
	hystrixFiles = map[string]string{
		"zuul.yml": `zuul:
  host: {connect-timeout-millis: 10000}
  ribbon-isolation-strategy: THREAD
  semaphore: {max-semaphores: 300}
ribbon: {ReadTimeout: 10000, MaxAutoRetriesNextServer: 1}
feign: {hystrix: {enabled: true}}
hystrix:
  threadpool:
    default: {coreSize: 100, maximumSize: 2000, allowMaximumSizeToDivergeFromCoreSize: true, keepAliveTimeMinutes: 2}
  command:
    default:
      execution: {isolation: {thread: {timeoutInMilliseconds: 40001}}}
      timeout: {enabled: false}
      circuitBreaker: {requestVolumeThreshold: 21, sleepWindowInMilliseconds: 5001, errorThresholdPercentage: 50%}
    orders: {circuitBreaker: {requestVolumeThreshold: 5}}
`,
		"dotted.yml": `hystrix.threadpool.default.coreSize: 20
hystrix.threadpool.default.maximumSize: 30
hystrix.threadpool.default.maxQueueSize: 100
hystrix.threadpool.default.queueSizeRejectionThreshold: 80
hystrix.command.default.execution.isolation.thread.timeoutInMilliseconds: 5000
hystrix.command.shop.grassIndex.execution.isolation.thread.timeoutInMilliseconds: 1500
`,
		"misplaced.yml": `hystrix:
  threadpool:
  default:
    coreSize: 100
  coreSize: 20
  command:
    default:
      execution:
        isolation:
          thread: {timeoutInMilliseconds: 2000, coreSize: 20}
    pay: {}
    ship:
`,
		"commands.yml": `spring:
  application: {name: @project.artifactId@}
hystrix:
  command:
    default: {execution: {isolation: {strategy: SEMAPHORE, semaphore: {maxConcurrentRequests: 200}, thread: {timeoutInMilliseconds: 60000}}}}
    AlipayCommand:
      execution: {isolation: {thread: {timeoutInMilliseconds: 12000}}}
      circuitBreaker: {errorThresholdPercentage: 40}
    "[LogisticsClient#track(String,int)]":
      execution: {isolation: {thread: {timeoutInMilliseconds: 8000}}}
    GeoCommand: {circuitBreaker: {errorThresholdPercentage: 70}, fallback: {enabled: false}}
  threadpool:
    default: {coreSize: 50, maximumSize: 100, allowMaximumSizeToDivergeFromCoreSize: true, maxQueueSize: 100, queueSizeRejectionThreshold: 80}
  dashboard: {enabled: true}
`,
		"pools.yml": `hystrix:
  command:
    UserService:
      threadPoolKeyOverride: UserServicePool
      execution: {isolation: {thread: {interruptOnTimeout: false, interruptOnFutureCancel: true}, semaphore: {maxConcurrentRequests: 77}}}
      metrics: {rollingStats: {timeInMilliseconds: 20000, numBuckets: 20}, rollingPercentile: {timeInMilliseconds: 30000, numBuckets: 3, bucketSize: 50}, healthSnapshot: {intervalInMilliseconds: 250}}
    default: {threadPoolKeyOverride: Everything, execution: {isolation: {semaphore: {maxConcurrentRequests: 78}}}}
  threadpool:
    UserServicePool: {coreSize: 200, maximumSize: 400, maxQueueSize: 100, queueSizeRejectionThreshold: 80, keepAliveTimeMinutes: 2}
    Idle: {coreSize: 3, maxQueueSize: 7}
    Quick: {queueSizeRejectionThreshold: 9}
`,
		"feign.properties": `feign.hystrix.enabled=true
HELLO-SERVICE.ribbon.MaxAutoRetries=1
hystrix.command.HelloClient#find(String).execution.isolation.thread.timeoutInMilliseconds=9000
hystrix.command.HelloClient#find(String,List).circuitBreaker.sleepWindowInMilliseconds=900
hystrix.command.[HelloClient#all()].circuitBreaker.requestVolumeThreshold = 7
hystrix.command.com.acme.HelloClient#drop(Long).fallback.isolation.semaphore.maxConcurrentRequests:33
hystrix.threadpool.HelloClient.coreSize=12
hystrix.collapser.default.maxRequestsInBatch=30
`,
		"legacy.properties": `hystrix.command.default.execution.isolation.strategy=TREAD
hystrix.command.default.execution.isolation.thread.timeoutInMilliseconds=3000 # ms
hystrix.command.default.execution.timeout.enabled=false
hystrix.command.default.circuitBreaker.forceClosed=true
hystrix.command.default.requestCache.enabled=false
hystrix.command.sns.grassSearchIndex.circuitBreaker.sleepWindowInMilliseconds=2000
hystrix.stream.dashboard.intervalInMilliseconds=1000
hystrix.metrics.enabled=true
hystrix.share-security-context=true
`,
		"relaxed.properties": `hystrix.command.default.execution.isolation.thread.timeout-in-milliseconds=7000
hystrix.command.Pay.circuit-breaker.request-volume-threshold=3
hystrix.command.Pay.circuitBreaker.requestVolumeThreshold=${PAY_VOLUME:4}
hystrix.command.Pay.circuitBreaker.errorThresholdPercentage=${PAY_ERRORS}
hystrix.threadpool.Pay.core-size=3
hystrix.threadpool.Pay.metrics.rollingStats.numBuckets=12
`,
		"own.properties": `hystrix.command.default.circuitBreaker.errorThresholdPercentage=60
hystrix.command.default.execution.isolation.thread.timeoutInMilliseconds=4000
hystrix.command.One.circuitBreaker.errorThresholdPercentage=61
hystrix.command.Two.circuitBreaker.errorThresholdPercentage=62
hystrix.threadpool.default.maxQueueSize=3
hystrix.threadpool.One.maxQueueSize=4
hystrix.threadpool.Two.maxQueueSize=5
`,
		"profiles.properties": `hystrix.command.A.circuitBreaker.errorThresholdPercentage=60
#---
spring.config.activate.on-profile=prod
hystrix.command.A.circuitBreaker.errorThresholdPercentage=70
`,
	}
	resilienceFiles = map[string]string{
		"kebab.yml": `spring: {profiles: {include: common}}
resilience4j:
  circuitbreaker:
    configs:
      toss-payment-default: {sliding-window-size: 20, minimum-number-of-calls: 10, slow-call-duration-threshold: 20000ms, ignore-exceptions: [io.github.X]}
  bulkhead: {instances: {toss-confirm: {max-concurrent-calls: 20, max-wait-duration: 200ms}}}
`,
		"full.yml": `feign: {circuitbreaker: {enabled: true}}
spring: {cloud: {circuitbreaker: {resilience4j: {disable-thread-pool: true}}}}
resilience4j.circuitbreaker:
  circuitBreakerAspectOrder: 1
  instances:
    inventory:
      slidingWindowType: TIME_BASED
      slidingWindowSize: 30
      minimumNumberOfCalls: 20
      failureRateThreshold: 60.5
      slowCallRateThreshold: 80
      slowCallDurationThreshold: 3s
      waitDurationInOpenState: PT30S
      permittedNumberOfCallsInHalfOpenState: 5
      automaticTransitionFromOpenToHalfOpenEnabled: true
      registerHealthIndicator: true
      eventConsumerBufferSize: 10
      recordExceptions: [java.io.IOException, java.util.concurrent.TimeoutException]
      ignoreExceptions: [com.acme.BusinessException]
      recordFailurePredicate: com.acme.P
      tags: {team: shop}
resilience4j.timelimiter: {instances: {inventory: {timeoutDuration: 3s, cancelRunningFuture: false}}}
resilience4j.retry: {instances: {inventory: {maxAttempts: 3, ignoreExceptions: [a.B]}}}
resilience4j.thread-pool-bulkhead: {instances: {inventory: {maxThreadPoolSize: 4, coreThreadPoolSize: 2, queueCapacity: 9, keepAliveDuration: 20ms}}}
`,
		"defaults.yml": `resilience4j:
  circuitbreaker:
    configs:
      default: {slidingWindowType: TIME_BASED, slidingWindowSize: 12, failureRateThreshold: 51, waitDurationInOpenState: 5s}
      slow: {baseConfig: default, waitDurationInOpenState: 50s}
      nobody: {waitDurationInOpenState: 51s}
    instances:
      a: {baseConfig: slow}
      b: {}
      c:
  timelimiter: {configs: {default: {timeoutDuration: 2s}}}
  ratelimiter: {instances: {a: {limitForPeriod: 10}}}
`,
		"wallet.properties": `resilience4j.circuitbreaker.instances.walletDB.sliding-window-size=120
resilience4j.circuitbreaker.instances.walletDB.failure-rate-threshold=55.0
resilience4j.circuitbreaker.instances.walletDB.wait-duration-in-open-state=61000
resilience4j.circuitbreaker.instances.walletDB.enable_exponential_backoff=true
resilience4j.circuitbreaker.instances.walletDB.ringBufferSizeInClosedState=5
resilience4j.circuitbreaker.backends.old.failureRateThreshold=0
resilience4j.circuitbreaker.instances.walletDB.waitDurationInOpenStateMillis=9
`,
		"two.yml": `resilience4j:
  bulkhead: {instances: {x: {maxConcurrentCalls: 3}}}
  threadpoolbulkhead: {instances: {x: {maxThreadPoolSize: 4, queueCapacity: 1}, y: {queueCapacity: 5}}}
  timelimiter: {instances: {x: {timeout-duration: 1500}}}
`,
	}
)

// list is the key of the list that an entry is of, or its own.
func list(key string) string {
	if name, at, ok := strings.Cut(key, "["); ok && strings.Trim(at, "0123456789]") == "" {
		return name
	}
	return key
}

// asProperties writes entries, one a line, as java.util.Properties reads them; the one to leave out, with the list that it may be of, is a
// comment.
func asProperties(all []entry, leave string) string {
	escape := strings.NewReplacer(`\`, `\\`, " ", `\ `, "=", `\=`, ":", `\:`)
	var b strings.Builder
	for _, e := range all {
		if list(e.key) == list(leave) {
			b.WriteString("#\n")
			continue
		}
		b.WriteString(escape.Replace(e.key) + "=" + strings.ReplaceAll(e.value, `\`, `\\`) + "\n")
	}
	return b.String()
}

// TestNothingIsLost leaves out one property after the other: each makes a difference, in the objects or in what is said.
func TestNothingIsLost(t *testing.T) {
	same := map[string]bool{ // but these
		"resilience4j.circuitbreaker.configs.slow.baseConfig":                      true, // the default is everybody's base
		"hystrix.threadpool.default.coreSize=100":                                  true, // the greater of two sizes counts
		"resilience4j.thread-pool-bulkhead.instances.inventory.coreThreadPoolSize": true, // the greater of two sizes counts
		"resilience4j.threadpoolbulkhead.instances.x.maxThreadPoolSize":            true, // x has another bulkhead; its pool is named as a whole
		"resilience4j.threadpoolbulkhead.instances.x.queueCapacity":                true,
		"resilience4j.retry.instances.inventory.ignoreExceptions[0]":               true, // the module is named as a whole
	}
	f := func(name, text string, run func(string, []byte, Options) (Result, error)) {
		t.Run(name, func(t *testing.T) {
			r, err := run(name, []byte(text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if read := config.Decode("out.yaml", r.YAML); len(read.Findings) > 0 || len(read.Objects) != r.Objects || r.Objects == 0 {
				t.Errorf("%d objects of %d can be read: %v\n%s", len(read.Objects), r.Objects, read.Findings, r.YAML)
			}
			all, err := (&translation{}).entries(name, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			told := func(leave string) string {
				r, err := run("x.properties", []byte(asProperties(all, leave)), Options{})
				return fmt.Sprint(string(r.YAML), r.Notes, err)
			}
			whole := told("")
			for _, e := range all {
				if (relevant(e.key) || beside(e.key) != "") && !same[e.key] && !same[e.key+"="+e.value] && told(e.key) == whole {
					t.Errorf("%s=%s is lost: nothing changes, and nothing is said, without it", e.key, e.value)
				}
			}
		})
	}
	for name, text := range hystrixFiles {
		f(name, text, Hystrix)
	}
	for name, text := range resilienceFiles {
		f(name, text, Resilience4j)
	}
}
