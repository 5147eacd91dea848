// A worker of a node with its loop, a client and a backend, all on one thread: the real way of a connection, over
// loopback sockets, with nothing beside it that could change the order of things.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

@testable import Gateway

/// One end of a connection as a test holds it.
final class RawEnd {
    private let descriptor: Descriptor
    private(set) var received: [UInt8] = []
    /// Whether the other side has ended, or reset, its sending.
    private(set) var ended = false
    private(set) var wasReset = false
    private var buffer = ByteBuffer()

    init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

    /// Resets the connection: a port that waits out its time (TIME_WAIT) is lacking soon at a thousand connections a
    /// second.
    func close() {
        ended = true
        Socket.setAbortOnClose(descriptor)
        descriptor.closeEarly()
    }

    /// Inputs are so small that the kernel takes all of it, or the connection is gone.
    func send(_ bytes: ArraySlice<UInt8>) throws {
        guard !bytes.isEmpty else { return }
        switch Socket.send(descriptor, Array(bytes).span) {
        case .bytes(let count): try require(count == bytes.count, "the kernel took \(count) of \(bytes.count) bytes")
        case .failed: break
        case .wouldBlock, .endOfFile: throw Finding("the kernel takes nothing")
        }
    }

    /// Reads what is there; whether that was anything.
    func receive() -> Bool {
        guard !ended else { return false }
        var moved = false
        while true {
            buffer.clear()
            switch Socket.receive(descriptor, into: &buffer, room: 16 << 10) {
            case .bytes:
                received += buffer.array
                moved = true
            case .wouldBlock: return moved
            case .endOfFile:
                ended = true
                return true
            case .failed:
                ended = true
                wasReset = true
                return true
            }
        }
    }

    func endSending() { Socket.shutdownWriting(descriptor) }
}

final class GatewayInProcess {
    let context: NodeContext
    private let loop: Loop
    private let worker: Worker
    private let control: Mailbox<ControlMessage>
    private let front: ListeningSocket
    private let back: ListeningSocket

    /// However slow the machine: a connection that is still open then has been forgotten.
    private static let patience = TimeSpan.seconds(20)

    init() throws {
        let any = SocketAddress(ip: .v4Loopback, port: 0)
        front = try ListeningSocket(any, reusePort: false)
        back = try ListeningSocket(any, reusePort: false)
        let file = """
            gateway:
              port: 127.0.0.1:\(front.address.port)
              workers: 1
            services:
              - name: all
                path: /
                instances: [http://127.0.0.1:\(back.address.port)]
            """
        context = NodeContext(
            try Configuration.parse(file, file: "fuzzing"), id: "fuzzing", workerCount: 1, descriptors: 1_024,
            accessLogSink: nil, limiterSetup: .none, policies: [])
        for backend in context.services.flatMap(\.backends) { _ = backend.replaceAddresses([.v4Loopback]) }
        let waker = try Waker()
        loop = try Loop(waker: waker)
        control = Mailbox(waker: try Waker())
        worker = Worker(
            node: context, index: 0, loop: loop, mailbox: Mailbox(waker: waker), control: control,
            balancers: context.services.map { $0.balancer { _ in true } })
        try worker.listen(on: [front])
    }

    func connect() throws -> RawEnd { RawEnd(try Socket.connect(to: .tcp(front.address))) }

    /// A connection that the gateway has made to its backend.
    func acceptBackend() throws -> RawEnd? {
        guard let connection = try back.accept() else { return nil }
        return RawEnd(connection.take())
    }

    /// Turns the loop until a turn brings nothing more. `step` plays the others, and says whether something moved.
    func settle(_ step: () throws -> Bool) throws {
        var quiet = 0
        while quiet < 2 {
            loop.turn(waitMax: .zero)
            quiet = try step() ? 0 : quiet + 1
        }
    }

    /// Turns the loop until `done`, which a promise says comes.
    func settle(until done: () -> Bool, _ what: String, _ step: () throws -> Bool) throws {
        let end = SystemClock.monotonic() + Self.patience
        while !done() {
            loop.turn(waitMax: .milliseconds(1))
            _ = try step()
            try require(SystemClock.monotonic() < end, what)
        }
    }

    /// Once both sides have let go, nothing of a connection may be left.
    func expectEmpty() throws {
        let end = SystemClock.monotonic() + Self.patience
        while context.connections.open > 0 || worker.pools.joined().contains(where: { $0.open > 0 }) {
            loop.turn(waitMax: .milliseconds(1))
            while let late = try acceptBackend() { late.close() }
            try require(SystemClock.monotonic() < end, "a connection is left open")
        }
        _ = control.take()
    }
}
