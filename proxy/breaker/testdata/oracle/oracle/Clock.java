package oracle;

/** The time that Hystrix sees: milliseconds that only the schedule moves. It stands in for java.lang.System. */
public final class Clock {
    /** The epoch of every schedule. Any positive number would do. */
    public static final long START = 1_700_000_000_000L;

    public static long sinceStart;

    private Clock() {}

    public static long currentTimeMillis() {
        return START + sinceStart;
    }
}
