package oracle;

import com.netflix.config.ConfigurationManager;
import com.netflix.hystrix.HystrixCircuitBreaker;
import com.netflix.hystrix.HystrixCommandGroupKey;
import com.netflix.hystrix.HystrixCommandKey;
import com.netflix.hystrix.HystrixCommandMetrics;
import com.netflix.hystrix.HystrixEventType;
import com.netflix.hystrix.HystrixObservableCommand;
import com.netflix.hystrix.exception.HystrixBadRequestException;
import com.netflix.hystrix.util.HystrixTimer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.concurrent.Delayed;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import rx.Observable;
import rx.Scheduler;
import rx.Subscription;
import rx.functions.Action0;
import rx.plugins.RxJavaPlugins;
import rx.plugins.RxJavaSchedulersHook;
import rx.schedulers.TestScheduler;
import rx.subjects.PublishSubject;

/**
 * Reads steps, one a line, in the order of their time, and writes what Hystrix makes of each:
 *
 * <pre>
 * MS KEY set PROPERTY VALUE      -
 * MS KEY new FALLBACK            - (the windows begin; FALLBACK is true where commands have one)
 * MS KEY go ID                   PHASE EVENT,EVENT...
 * MS KEY ok|fail|bad|reject ID   PHASE EVENT,EVENT...
 * MS KEY fallback-ok ID          PHASE EVENT,EVENT...
 * MS KEY fallback-fail ID        PHASE EVENT,EVENT...
 * MS KEY cancel ID               PHASE EVENT,EVENT...
 * MS KEY see ID                  PHASE EVENT,EVENT...
 * MS KEY look                    OPEN ALLOWS TOTAL ERRORS PERCENTAGE ACTIVE MOST COUNT,COUNT...
 * </pre>
 *
 * PHASE is run, fall (the fallback runs) or done. At each millisecond RxJava's timers run first, then Hystrix's, then
 * the steps.
 */
public final class Driver {
    private static final TestScheduler scheduler = new TestScheduler();
    private static final Timer timer = new Timer();
    private static final Map<String, Command> commands = new HashMap<>();
    private static final Map<String, Boolean> fallbacks = new HashMap<>();

    public static void run() throws Exception {
        PrintStream out = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false, "UTF-8");
        RxJavaPlugins.getInstance().registerSchedulersHook(new RxJavaSchedulersHook() {
            @Override
            public Scheduler getComputationScheduler() {
                return new Prompt();
            }
        });
        installTimer();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        StringBuilder answers = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) {
            String[] step = line.split(" ");
            advance(Long.parseLong(step[0]));
            answers.append(answer(step)).append('\n');
            if (answers.length() > 1 << 16) {
                out.print(answers);
                answers.setLength(0);
            }
        }
        out.print(answers);
        out.flush();
    }

    private static void advance(long to) {
        while (Clock.sinceStart < to) {
            Clock.sinceStart++;
            scheduler.advanceTimeTo(Clock.sinceStart, TimeUnit.MILLISECONDS);
            timer.run(Clock.sinceStart);
        }
    }

    private static String answer(String[] step) {
        String key = step[1];
        switch (step[2]) {
            case "set":
                ConfigurationManager.getConfigInstance().setProperty("hystrix.command." + key + "." + step[3], step[4]);
                return "-";
            case "new":
                fallbacks.put(key, Boolean.valueOf(step[3]));
                new Command(key, false);
                look(key); // its streams begin when they are first asked
                return "-";
            case "look":
                return look(key);
        }
        String id = key + "/" + step[3];
        if (step[2].equals("go")) {
            Command c = new Command(key, fallbacks.get(key));
            commands.put(id, c);
            c.begin();
            return c.tell();
        }
        Command c = commands.get(id);
        switch (step[2]) {
            case "ok":
                c.execution.onCompleted();
                break;
            case "fail":
                c.execution.onError(new RuntimeException("failed"));
                break;
            case "bad":
                c.execution.onError(new HystrixBadRequestException("bad request"));
                break;
            case "reject":
                c.execution.onError(new RejectedExecutionException("no room"));
                break;
            case "fallback-ok":
                c.fallback.onCompleted();
                break;
            case "fallback-fail":
                c.fallback.onError(new RuntimeException("fallback failed"));
                break;
            case "cancel":
                c.subscription.unsubscribe();
                c.done = true;
                break;
            case "see":
                break;
            default:
                throw new IllegalArgumentException(String.join(" ", step));
        }
        return c.tell();
    }

    private static String look(String key) {
        HystrixCommandKey k = HystrixCommandKey.Factory.asKey(key);
        HystrixCircuitBreaker breaker = HystrixCircuitBreaker.Factory.getInstance(k);
        HystrixCommandMetrics metrics = HystrixCommandMetrics.getInstance(k);
        HystrixCommandMetrics.HealthCounts health = metrics.getHealthCounts();
        StringBuilder s = new StringBuilder();
        s.append(breaker != null && breaker.isOpen()).append(' ').append(breaker == null || breaker.allowRequest()).append(' ');
        s.append(health.getTotalRequests()).append(' ').append(health.getErrorCount()).append(' ').append(health.getErrorPercentage());
        s.append(' ').append(metrics.getCurrentConcurrentExecutionCount());
        s.append(' ').append(metrics.getRollingMaxConcurrentExecutions()).append(' ');
        for (HystrixEventType type : HystrixEventType.values()) {
            s.append(type.ordinal() == 0 ? "" : ",").append(metrics.getRollingCount(type));
        }
        return s.toString();
    }

    /** A command whose execution and fallback end when the schedule says so. */
    private static final class Command extends HystrixObservableCommand<Integer> {
        final PublishSubject<Integer> execution = PublishSubject.create();
        final PublishSubject<Integer> fallback = PublishSubject.create();
        final boolean hasFallback;
        boolean falls;
        boolean done;
        Subscription subscription;

        Command(String key, boolean hasFallback) {
            super(Setter.withGroupKey(HystrixCommandGroupKey.Factory.asKey("oracle")).andCommandKey(HystrixCommandKey.Factory.asKey(key)));
            this.hasFallback = hasFallback;
        }

        void begin() {
            subscription = toObservable().subscribe(n -> {}, e -> done = true, () -> done = true);
        }

        @Override
        protected Observable<Integer> construct() {
            return execution;
        }

        @Override
        protected Observable<Integer> resumeWithFallback() {
            if (!hasFallback) {
                return super.resumeWithFallback();
            }
            falls = true;
            return fallback;
        }

        String tell() {
            List<String> events = new ArrayList<>();
            for (HystrixEventType type : getExecutionEvents()) {
                events.add(type.name().toLowerCase());
            }
            return (done ? "done " : falls ? "fall " : "run ") + (events.isEmpty() ? "-" : String.join(",", events));
        }
    }

    /**
     * The scheduler, but for what is to begin at once: that does. Each window of RxJava's begins with such a tick, on a
     * thread of its own; whether that thread, or the end of the probe that has just restarted the window, is the first
     * to be seen by it is a race in Hystrix. Here the tick is.
     */
    private static final class Prompt extends Scheduler {
        @Override
        public Worker createWorker() {
            Worker worker = scheduler.createWorker();
            return new Worker() {
                @Override
                public Subscription schedulePeriodically(Action0 action, long delay, long period, TimeUnit unit) {
                    if (delay != 0) {
                        return worker.schedulePeriodically(action, delay, period, unit);
                    }
                    action.call();
                    return worker.schedulePeriodically(action, period, period, unit);
                }

                @Override
                public Subscription schedule(Action0 action) {
                    return worker.schedule(action);
                }

                @Override
                public Subscription schedule(Action0 action, long delay, TimeUnit unit) {
                    return worker.schedule(action, delay, unit);
                }

                @Override
                public void unsubscribe() {
                    worker.unsubscribe();
                }

                @Override
                public boolean isUnsubscribed() {
                    return worker.isUnsubscribed();
                }
            };
        }

        @Override
        public long now() {
            return scheduler.now();
        }
    }

    /** Puts our timer into the place of Hystrix's thread pool. */
    private static void installTimer() throws Exception {
        Class<?> type = Class.forName("com.netflix.hystrix.util.HystrixTimer$ScheduledExecutor", true, Driver.class.getClassLoader());
        Constructor<?> make = type.getDeclaredConstructor();
        make.setAccessible(true);
        Object executor = make.newInstance();
        Field pool = type.getDeclaredField("executor");
        pool.setAccessible(true);
        pool.set(executor, timer);
        Field initialized = type.getDeclaredField("initialized");
        initialized.setAccessible(true);
        initialized.set(executor, true);
        Field field = HystrixTimer.class.getDeclaredField("executor");
        field.setAccessible(true);
        @SuppressWarnings("unchecked")
        AtomicReference<Object> reference = (AtomicReference<Object>) field.get(HystrixTimer.getInstance());
        reference.set(executor);
    }

    /** A thread pool without threads: what is due runs when the clock gets there, in the order in which it was asked for. */
    private static final class Timer extends ScheduledThreadPoolExecutor {
        private final PriorityQueue<Task> tasks = new PriorityQueue<>();
        private long made;

        Timer() {
            super(0);
        }

        @Override
        public ScheduledFuture<?> scheduleAtFixedRate(Runnable what, long delay, long period, TimeUnit unit) {
            Task task = new Task(what, Clock.sinceStart + unit.toMillis(delay), made++);
            tasks.add(task);
            return task;
        }

        void run(long now) {
            while (!tasks.isEmpty() && tasks.peek().at <= now) {
                Task task = tasks.poll();
                if (!task.cancelled) {
                    task.what.run(); // once is enough: a timeout that fired, or lost, does nothing the next time
                }
            }
        }
    }

    private static final class Task implements ScheduledFuture<Object> {
        final Runnable what;
        final long at;
        final long number;
        boolean cancelled;

        Task(Runnable what, long at, long number) {
            this.what = what;
            this.at = at;
            this.number = number;
        }

        @Override
        public int compareTo(Delayed other) {
            Task o = (Task) other;
            return at != o.at ? Long.compare(at, o.at) : Long.compare(number, o.number);
        }

        @Override
        public long getDelay(TimeUnit unit) {
            return unit.convert(at - Clock.sinceStart, TimeUnit.MILLISECONDS);
        }

        @Override
        public boolean cancel(boolean interrupt) {
            cancelled = true;
            return true;
        }

        @Override
        public boolean isCancelled() {
            return cancelled;
        }

        @Override
        public boolean isDone() {
            return cancelled;
        }

        @Override
        public Object get() {
            throw new UnsupportedOperationException();
        }

        @Override
        public Object get(long timeout, TimeUnit unit) {
            throw new UnsupportedOperationException();
        }
    }
}
