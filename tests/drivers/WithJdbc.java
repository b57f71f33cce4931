import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;

/** pgjdbc and HikariCP: the steps of steps.py, one a line on standard input. */
public class WithJdbc {
    private static HikariDataSource pool;
    private static Connection held;

    interface Step {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://" + args[0] + "/postgres?sslmode=disable");
        config.setUsername("app");
        config.setMinimumIdle(2);
        config.setMaximumPoolSize(4);
        config.setConnectionTimeout(5000);
        pool = new HikariDataSource(config);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            System.out.println(answer(line.trim()));
        }
        System.exit(0);
    }

    private static String answer(String name) throws InterruptedException {
        switch (name) {
            case "open": return outcome(() -> { try (Connection one = pool.getConnection(); Connection other = pool.getConnection()) { update(one, "A"); update(other, "A"); } });
            case "begin": return outcome(() -> { held = pool.getConnection(); held.setAutoCommit(false); update(held, "A, in a transaction"); });
            case "commit": return outcome(() -> { try { held.commit(); } finally { held.close(); } });
            case "write": return outcome(WithJdbc::write);
            case "again": return again();
            default: return "no such step";
        }
    }

    private static void write() throws SQLException {
        try (Connection connection = pool.getConnection()) {
            update(connection, "A");
        }
    }

    private static void update(Connection connection, String by) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("UPDATE orders SET by_whom = '" + by + "'");
        }
    }

    private static String outcome(Step step) {
        long began = System.nanoTime();
        String result = "ok";
        try {
            step.run();
        } catch (Exception error) {
            // HikariCP says that it waited too long; why is below.
            Throwable cause = error.getCause() instanceof SQLException ? error.getCause() : error;
            String state = cause instanceof SQLException ? " " + ((SQLException) cause).getSQLState() : "";
            String text = String.valueOf(cause.getMessage()).replaceAll("\\s+", " ");
            result = error.getClass().getSimpleName() + state + ": " + text.substring(0, Math.min(110, text.length()));
        }
        return String.format("%s [%.1f s]", result, (System.nanoTime() - began) / 1e9);
    }

    private static String again() throws InterruptedException {
        int failures = 0;
        String first = "";
        long began = System.nanoTime();
        while (System.nanoTime() - began < 60e9) {
            String result = outcome(WithJdbc::write);
            double took = (System.nanoTime() - began) / 1e9;
            if (result.startsWith("ok")) {
                return String.format("after %d failures%s [%.1f s]", failures, failures > 0 ? ", first " + first : "", took);
            }
            first = failures++ == 0 ? result : first;
            Thread.sleep(50);
        }
        return "never: " + failures + " failures, first " + first;
    }
}
