// A backend on raw sockets: it answers as its script says and keeps every request that it was sent.

import Glibc
import LinuxIO
package import Primitives
import Synchronization

package final class RecordingBackend: Sendable {
    /// What becomes of a connection after an answer.
    package enum Next: Sendable { case keep, close }

    /// A request, and the connection to answer on.
    package struct Exchange {
        package let request: WireMessage
        package let wire: Wire
        /// Counts connections from 0, and the requests of one connection from 0.
        package let connection: Int
        package let number: Int

        /// Answers with a body that has a length.
        package func answer(_ body: String = "", status: String = "200 OK", fields: String = "") throws {
            try wire.send("HTTP/1.1 \(status)\r\n\(fields)Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
    }

    private struct State {
        var requests: [WireMessage] = []
        var probes = 0
        var bytes: [UInt8] = []
        var wires: [Wire] = []
        var threads: [OSThread] = []
        var connections = 0
        var stopped = false
    }

    package let address: SocketAddress
    private let listener: Listening
    /// Its own when it has stopped, too: whoever comes then is refused, and meets no other test's backend.
    private let held: HeldPort?
    private let state = Mutex(State())

    /// A listening descriptor that can be shut down from another thread.
    private final class Listening: Sendable {
        let raw: Int32
        init(_ raw: Int32) { self.raw = raw }
        deinit { close(raw) }
    }

    /// - Parameters:
    ///   - ip: where it listens.
    ///   - port: a free one by default.
    ///   - connection: serves one connection, which ends when it returns. The number counts connections from 0.
    package init(
        on ip: IPAddress = .v4Loopback, port: UInt16 = 0,
        serving connection: @escaping @Sendable (RecordingBackend, Wire, Int) throws -> Void
    ) throws {
        let family = ip.family == .v4 ? AF_INET : AF_INET6
        let raw = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw WireError.system("socket", errno: errno) }
        listener = Listening(raw)
        HeldPort.shareAddress(raw)
        held = try port == 0 ? HeldPort(on: ip) : nil
        address = held?.address ?? SocketAddress(ip: ip, port: port)
        guard unsafe withSocketAddress(address, { unsafe bind(raw, $0, $1) }) == 0, listen(raw, 1024) == 0 else {
            throw WireError.system("listen", errno: errno)
        }
        let thread = OSThread(name: "accept") { [self, listener] in
            while true {
                let accepted = accept(listener.raw, nil, nil)
                guard accepted >= 0 else { return }
                _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
                take(Wire(adopting: accepted), connection)
            }
        }
        state.withLock { $0.threads.append(thread) }
    }

    /// Serves request by request. Probes of `/health` are answered with 200 and counted apart.
    package convenience init(
        on ip: IPAddress = .v4Loopback, port: UInt16 = 0,
        _ script: @escaping @Sendable (Exchange) throws -> Next = {
            try $0.answer()
            return .keep
        }
    ) throws {
        try self.init(on: ip, port: port) { backend, wire, connection in
            wire.received = { bytes in backend.state.withLock { $0.bytes += bytes } }
            var number = 0
            while let request = try wire.readRequest() {
                let exchange = Exchange(request: request, wire: wire, connection: connection, number: number)
                if request.target == "/health" {
                    backend.state.withLock { $0.probes += 1 }
                    try exchange.answer()
                    continue
                }
                backend.state.withLock { $0.requests.append(request) }
                number += 1
                switch try script(exchange) {
                case .keep: continue
                case .close: return
                }
            }
        }
    }

    private func take(_ wire: Wire, _ connection: @escaping @Sendable (RecordingBackend, Wire, Int) throws -> Void) {
        let number: Int? = state.withLock { state in
            guard !state.stopped else { return nil }
            state.wires.append(wire)
            state.connections += 1
            return state.connections - 1
        }
        guard let number else { return }
        let thread = OSThread(name: "backend") { [self] in
            // A connection that breaks is what many tests are about; what matters shows at the client.
            try? connection(self, wire, number)
            state.withLock { $0.wires.removeAll { $0 === wire } }
            wire.close()
        }
        state.withLock { $0.threads.append(thread) }
    }

    /// For scripts that read by themselves.
    package func record(_ request: WireMessage) { state.withLock { $0.requests.append(request) } }

    package var url: String { "http://\(address)" }
    package var requests: [WireMessage] { state.withLock(\.requests) }
    package var probes: Int { state.withLock(\.probes) }
    package var connections: Int { state.withLock(\.connections) }
    /// Every byte received so far, over all connections.
    package var bytes: [UInt8] { state.withLock(\.bytes) }

    /// Refuses connections from now on and ends those that are open.
    package func stop() {
        let (wires, threads) = state.withLock { state in
            state.stopped = true
            defer { state.threads = [] }
            return (state.wires, state.threads)
        }
        _ = shutdown(listener.raw, Int32(SHUT_RDWR))
        for wire in wires { wire.close() }
        for thread in threads { thread.join() }
    }
}
