// One connection to a backend. It carries bytes; what they mean to the exchange is the client connection's business.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

final class BackendConnection: StreamHandler {
    let pool: BackendPool
    let timeouts: Configuration.Timeouts
    private let worker: Worker
    private let loop: Loop
    let stream: Stream
    /// The exchange that this connection serves; none while it lies idle.
    var client: ClientConnection?
    /// Whether it has served an exchange before: then the backend may have closed it meanwhile.
    private(set) var exchangesServed = 0
    private let walk: AddressWalk
    /// The part of a response head that has arrived; empty otherwise.
    private var held = ByteBuffer()
    var hasBegunHead: Bool { !held.isEmpty }
    private var progress = HeadProgress()
    var bufferBytes: Int { held.capacity + stream.outputCapacity }
    /// The turn of the loop in which the exchange at hand began to send.
    private var turnTaken = UInt64.max

    private init(_ walk: AddressWalk, in pool: BackendPool, for client: ClientConnection) throws(SystemError) {
        self.pool = pool
        self.client = client
        self.walk = walk
        timeouts = pool.timeouts
        worker = pool.worker
        loop = worker.loop
        stream = try loop.prepare(connectingTo: .tcp(walk.target))
        try loop.start(stream, self)
        stream.deadline = walk.deadline(from: loop.now)
    }

    /// Starts a connection, trying the backend's addresses in turn. `nil` where none can even be tried.
    static func connect(in pool: BackendPool, for client: ClientConnection) -> BackendConnection? {
        let walk = AddressWalk(pool)
        guard let connection = connect(along: walk, in: pool, for: client) else { return nil }
        pool.opened()
        return connection
    }

    private static func connect(
        along walk: AddressWalk, in pool: BackendPool, for client: ClientConnection
    ) -> BackendConnection? {
        var walk = walk
        while walk.next() {
            do throws(SystemError) {
                return try BackendConnection(walk, in: pool, for: client)
            } catch {
                guard error.isOutOfDescriptors else { continue }
                // A request in hand goes before connections that lie idle.
                pool.worker.pressure.freeDescriptor(error.reason)
                if let connection = try? BackendConnection(walk, in: pool, for: client) { return connection }
            }
        }
        return nil
    }

    var isConnected: Bool { stream.isOpen }

    /// Whether an idle connection may be used again: the backend has neither closed it nor sent what nobody asked for.
    var isUsable: Bool { stream.isOpen && !stream.mayHaveBytes }

    /// Asks the socket itself whether the backend has closed an idle connection. A request that must not be sent twice is
    /// worth the call: the news of the end may still be on its way through epoll.
    var isStillOpen: Bool {
        // Not into `input`, which whoever called may be reading.
        worker.surplus.clear()
        return stream.receive(into: &worker.surplus, room: 1) == .wouldBlock
    }

    /// Begins an exchange on a connection that is open.
    func serve(_ client: ClientConnection) {
        self.client = client
        client.backend = self
        stream.deadline = .distantFuture
        turnTaken = loop.turns
    }

    /// Ends the exchange. `reusable` says that both sides agree where the next message begins.
    func finish(reusable: Bool) {
        client = nil
        exchangesServed += 1
        _ = held.take()
        guard reusable, stream.isOpen, !worker.draining else {
            close()
            return
        }
        if stream.mayHaveBytes {
            // The last read filled its room, so the socket may hold more; bytes here would answer a question that
            // nobody asked, and poison the next exchange.
            guard isStillOpen else {
                close()
                return
            }
        }
        pool.release(self)
    }

    /// The exchange has become a tunnel, whose end is the connection's end too.
    func becomeTunnel() {
        client = nil
        _ = held.take()
    }

    func close() {
        client = nil
        _ = held.take()
        if stream.state != .closed {
            stream.close()
            pool.closed(self)
        }
    }

    // MARK: Stream

    func streamConnected(_ stream: Stream) {
        pool.preferredAddress = walk.address
        stream.deadline = .distantFuture
        if let client {
            turnTaken = loop.turns
            client.backendConnected(self)
        } else {
            pool.release(self)
        }
    }

    func streamReadable(_ stream: Stream) {
        var reads = DataPathLimits.readsPerTurn
        while stream.mayHaveBytes {
            guard let client else {
                // Idle: the backend closes it, or sends what nobody asked for. Either way it is of no more use.
                close()
                return
            }
            guard turnTaken != loop.turns else {
                // RFC 9112 §9.2: this turn's events were there before the request was sent, so what they announce is
                // no answer to it. Bytes that a backend sends behind a complete answer would be taken for the next
                // client's (response queue poisoning).
                client.backendEnded(self, nil)
                return
            }
            guard client.takesResponse else { return }
            guard reads > 0 else {
                stream.resumeReading()
                return
            }
            reads -= 1
            if !receive(client) { return }
        }
    }

    /// Reads once and hands the bytes on. Returns whether reading may go on.
    private func receive(_ client: ClientConnection) -> Bool {
        var input = worker.input.take()
        input.clear()
        let outcome = stream.receive(into: &input, room: DataPathLimits.readBytes)
        if case .bytes = outcome { deliver(input, client) }
        swap(&input, &worker.input)
        switch outcome {
        case .bytes: return self.client === client
        case .wouldBlock: return false
        case .endOfFile:
            client.backendEnded(self, nil)
            return false
        case .failed(let error):
            client.backendEnded(self, error)
            return false
        }
    }

    private func deliver(_ input: borrowing ByteBuffer, _ client: ClientConnection) {
        if held.isEmpty {
            take(input.bytes, client)
        } else {
            var whole = held.take()
            whole.append(input.bytes)
            // A backend that sends its head byte by byte costs a look a line, not one a byte.
            if isNews(whole.bytes) { take(whole.bytes, client) } else { swap(&whole, &held) }
        }
    }

    private func take(_ bytes: Span<UInt8>, _ client: ClientConnection) {
        switch client.takeResponse(bytes, from: self) {
        case .all: break
        case .needsMore(let consumed):
            // Only the incomplete head of a response is ever kept.
            var rest = ByteBuffer()
            rest.append(bytes.extracting(consumed..<bytes.count))
            progress.reset()
            _ = isNews(rest.bytes)
            swap(&rest, &held)
        case .finished(let reusable): finish(reusable: reusable)
        case .abandoned: break
        }
    }

    private func isNews(_ bytes: Span<UInt8>) -> Bool {
        var progress = self.progress
        defer { self.progress = progress }
        return progress.hasNews(in: bytes)
    }

    func streamDrained(_ stream: Stream) { client?.backendDrained() }

    func streamFailed(_ stream: Stream, _ error: SystemError) {
        let connecting = stream.state == .connecting
        if !connecting, let client, stream.mayHaveBytes, !client.uploadBroken {
            client.uploadFailed(self)
            return
        }
        if connecting {
            connectFailed(.refused)
            return
        }
        let client = self.client
        close()
        client?.backendFailed(self, .reset)
    }

    private func connectFailed(_ fault: BackendFault) {
        stream.close()
        guard let client else {
            pool.closed(self)
            return
        }
        self.client = nil
        if let next = Self.connect(along: walk, in: pool, for: client) {
            // It has this one's place.
            client.backendReplaced(self, by: next)
        } else {
            pool.closed(self)
            client.backendFailed(self, fault)
        }
    }

    func streamDeadlinePassed(_ stream: Stream) {
        if stream.state == .connecting {
            connectFailed(.connectTimeout)
            return
        }
        let client = self.client
        close()
        client?.backendFailed(self, .responseTimeout)
    }
}

/// The way through a backend's addresses: each gets its share of the time, so that one that is silent leaves some to the
/// next.
private struct AddressWalk {
    private let addresses: [IPAddress]
    private let port: UInt16
    private let first: Int
    private let end: MonotonicTime
    private var attempts = 0

    init(_ pool: BackendPool) {
        addresses = pool.backend.addresses
        port = pool.backend.port
        first = pool.preferredAddress
        end = pool.worker.loop.now + pool.timeouts.connect
    }

    /// Goes on to the next address; `false` where all have been tried.
    mutating func next() -> Bool {
        guard attempts < addresses.count else { return false }
        attempts += 1
        return true
    }

    /// Which one is tried, from the first `next` on.
    var address: Int { (first + attempts - 1) % addresses.count }
    var target: SocketAddress { SocketAddress(ip: addresses[address], port: port) }

    func deadline(from now: MonotonicTime) -> MonotonicTime {
        now + (end - now) / Int64(addresses.count - attempts + 1)
    }
}

/// How a backend let an exchange down.
enum BackendFault: Equatable, Sendable {
    case refused
    case connectTimeout
    case reset
    case responseTimeout
    case malformed
    /// A 5xx status.
    case serverError(Int)

    /// Whether a status speaks against the backend that has answered so.
    ///
    /// RFC 9110 §15.6.2, §15.6.6: with 501 and 505 the method or version is one that it does not know, so the client chose
    /// it. A client must not be able to condemn a backend by what it asks for.
    @inline(__always)
    static func isBlamed(for status: Int) -> Bool { status >= 500 && status != 501 && status != 505 }
}
