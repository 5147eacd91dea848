// Starts a new process of this node, for one that has no supervisor, and waits until it serves or has failed.

import LinuxIO
import Primitives
import Synchronization

/// How this process was started, so that another can be started alike.
package struct StartedAs: Sendable {
    package var program: String
    package var arguments: [String]
    package var environment: [String: String]

    package init(program: String, arguments: [String], environment: [String: String]) {
        self.program = program
        self.arguments = arguments
        self.environment = environment
    }
}

package struct SuccessionError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

package final class Successor: Sendable {
    /// A new process that does not serve by then has failed.
    static let startTime = TimeSpan.seconds(60)

    private struct State {
        /// The new process, until it serves or has failed.
        var id: Int32?
        var isEnding = false
    }
    private let state = Mutex(State())

    package init() {}

    /// This process ends: so does one that is being started in its place and does not serve yet, which nobody else knows
    /// of. None is started any more.
    package func end() {
        state.withLock { state in
            state.isEnding = true
            if let id = state.id { Processes.send(Signals.kill, to: id) }
        }
    }

    /// Blocks until the new process serves; returns its id. It holds the sockets as this one does.
    package func start(
        _ started: StartedAs, sockets: [(role: SocketRole, raw: Int32)]
    ) throws(SuccessionError) -> Int32 {
        let (id, line) = try state.withLock { state throws(SuccessionError) -> (Int32, Channel) in
            if state.isEnding { throw SuccessionError("this process is about to end") }
            let (id, line) = try Self.spawn(started, sockets)
            state.id = id
            return (id, line)
        }
        let limit = SystemClock.monotonic() + Self.startTime
        while true {
            let left = max(.zero, limit - SystemClock.monotonic())
            guard awaitReadable([line.descriptor.raw], atMost: Int32(clamping: left.milliseconds + 1))[0] else {
                if SystemClock.monotonic() < limit { continue }
                Processes.send(Signals.kill, to: id)
                _ = ended(id)
                throw SuccessionError("the new process did not serve within \(Self.startTime)")
            }
            guard let (text, descriptors) = line.receive() else {
                throw SuccessionError("the new process ended with \(ended(id)) before it served: see the log")
            }
            for raw in descriptors { Descriptor(adopting: raw).closeEarly() }
            switch Word(text) {
            case .ready:
                let isEnding = state.withLock { state in
                    state.id = nil
                    return state.isEnding
                }
                guard !isEnding else {
                    _ = Processes.wait(for: id)
                    throw SuccessionError("this process is about to end")
                }
                return id
            case .failed(let reason):
                _ = ended(id)
                throw SuccessionError(reason)
            case .wantsUpgrade, .reloaded, .manner, .configuration, .upgrading, .handOver, .upgradeFailed, nil: continue
            }
        }
    }

    private func ended(_ id: Int32) -> ProcessEnd {
        // Waited for, its id may become another's.
        state.withLock { $0.id = nil }
        return Processes.wait(for: id)
    }

    private static func spawn(
        _ started: StartedAs, _ sockets: [(role: SocketRole, raw: Int32)]
    ) throws(SuccessionError) -> (id: Int32, line: Channel) {
        do throws(SystemError) {
            let (here, there) = try Channel.pair()
            let list = SocketList(sockets.map { SocketList.Entry(raw: $0.raw, role: $0.role) })
            let environment = HandoverKeys.environment(
                started.environment,
                adding: [
                    HandoverKeys.sockets: list.text,
                    HandoverKeys.parent: ParentLink.variable(there.descriptor.raw, isSupervisor: false),
                ])
            let id = try Processes.start(
                started.program, started.arguments, environment: environment,
                keeping: sockets.map(\.raw) + [there.descriptor.raw], blocking: NodeSignals.all, ownGroup: false)
            there.descriptor.closeEarly()
            return (id, here)
        } catch {
            throw SuccessionError("\(started.program) does not start: \(error.reason)")
        }
    }
}
