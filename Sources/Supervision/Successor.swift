// Starts a new process of this node, for one that has no supervisor, and waits until it serves or has failed.

import LinuxIO
import Primitives

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

package enum Successor {
    /// A new process that does not serve by then has failed.
    static let startTime = TimeSpan.seconds(60)

    /// Blocks until the new process serves; returns its id. It holds the sockets as this one does.
    package static func start(
        _ started: StartedAs, sockets: [(role: SocketRole, raw: Int32)]
    ) throws(SuccessionError) -> Int32 {
        let id: Int32
        let mine: Channel
        do throws(SystemError) {
            let (here, there) = try Channel.pair()
            mine = here
            let list = SocketList(sockets.map { SocketList.Entry(raw: $0.raw, role: $0.role) })
            let environment = HandoverKeys.environment(
                started.environment,
                adding: [
                    HandoverKeys.sockets: list.text,
                    HandoverKeys.parent: ParentLink.variable(there.descriptor.raw, isSupervisor: false),
                ])
            id = try Processes.start(
                started.program, started.arguments, environment: environment,
                keeping: sockets.map(\.raw) + [there.descriptor.raw], ownGroup: false)
            there.descriptor.closeEarly()
        } catch {
            throw SuccessionError("\(started.program) does not start: \(error.reason)")
        }
        let limit = SystemClock.monotonic() + startTime
        while true {
            let left = max(.zero, limit - SystemClock.monotonic())
            guard awaitReadable([mine.descriptor.raw], atMost: Int32(clamping: left.milliseconds))[0] else {
                Processes.send(Signals.kill, to: id)
                _ = Processes.wait(for: id)
                throw SuccessionError("the new process did not serve within \(startTime)")
            }
            guard let (text, descriptors) = mine.receive() else {
                let end = Processes.wait(for: id)
                throw SuccessionError("the new process ended with \(end) before it served: see the log")
            }
            for raw in descriptors { Descriptor(adopting: raw).closeEarly() }
            switch Word(text) {
            case .ready: return id
            case .failed(let reason):
                _ = Processes.wait(for: id)
                throw SuccessionError(reason)
            case .wantsUpgrade, .reloaded, .upgrading, .handOver, .upgradeFailed, nil: continue
            }
        }
    }
}
