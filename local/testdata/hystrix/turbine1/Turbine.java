import com.netflix.turbine.init.TurbineInit;
import com.netflix.turbine.streaming.servlet.TurbineStreamServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/** Turbine 1 as its users deploy it, its servlet in a container: java -cp ... -D... Turbine.java PORT. Its properties say which streams it reads. */
public class Turbine {
  public static void main(String[] args) throws Exception {
    TurbineInit.init();
    ServletContextHandler context = new ServletContextHandler();
    context.addServlet(new ServletHolder(new TurbineStreamServlet()), "/turbine.stream");
    Server server = new Server(Integer.parseInt(args[0]));
    server.setHandler(context);
    server.start();
    server.join();
  }
}
