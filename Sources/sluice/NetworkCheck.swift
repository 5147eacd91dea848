// `sluice check --network`: whether what the configuration names is there.

import Configuration
import EventLoop
import Gateway
import LinuxIO
import Primitives

struct NetworkCheck {
    private let configuration: Configuration

    init(_ configuration: Configuration) { self.configuration = configuration }

    /// Prints a line for each; returns whether all are there.
    func run() -> Bool {
        var isWell = true
        func tell(_ what: String, _ problem: String?) {
            print("\(problem == nil ? "ok  " : "FAIL") \(what)\(problem.map { ": \($0)" } ?? "")")
            if problem != nil { isWell = false }
        }
        if let redis = configuration.rateLimit?.redisURL {
            tell("redis \(redis)", RedisCheck.problem(of: redis))
        }
        for service in configuration.services {
            for backend in service.instances {
                tell("backend \(service.name) \(backend.url)", BackendCheck.problem(of: backend, in: service))
            }
        }
        if let collector = configuration.tracing?.otlp {
            // Spans that are no requests of anybody's would be stored: it is enough that somebody listens.
            tell(
                "collector \(collector.endpoint)",
                ConnectionCheck.problem(
                    host: collector.endpoint.host.plain, port: collector.endpoint.port, within: collector.timeout))
        }
        return isWell
    }
}

/// Makes one connection and closes it again.
private final class ConnectionCheck: StreamHandler {
    private var outcome: String??

    static func problem(host: String, port: UInt16, within: TimeSpan) -> String? {
        do {
            let loop = try Loop(waker: try Waker())
            var last = "no address"
            for address in try HostNames.resolve(host) {
                let check = ConnectionCheck()
                let stream = try loop.connect(to: .tcp(SocketAddress(ip: address, port: port)), handler: check)
                stream.deadline = loop.now + within
                while check.outcome == nil { loop.turn() }
                stream.close()
                guard let problem = check.outcome.flatMap({ $0 }) else { return nil }
                last = problem
            }
            return last
        } catch {
            return "\(error)"
        }
    }

    func streamConnected(_ stream: Stream) { outcome = .some(nil) }
    func streamReadable(_ stream: Stream) {}
    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) { outcome = .some(error.reason) }
    func streamDeadlinePassed(_ stream: Stream) { outcome = .some("no connection in time") }
}
