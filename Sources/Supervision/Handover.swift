// What one process of a node passes on to the next: its listening sockets, and what its parent knows.
//
// Sockets are inherited under the numbers that they had, and `SLUICE_SOCKETS` says what each is for. No connection is
// refused or reset while they change hands: the queue in which connections wait belongs to the socket, not to a process,
// and lives until the last process closes it.

package import LinuxIO
package import Primitives
import Synchronization

/// What a listening socket is for.
package enum SocketRole: String, Sendable {
    case gateway
    case admin
}

/// What a process of a node obeys. It is started with these blocked: between its start and the moment in which it can
/// obey, a signal must neither end it nor be lost.
package enum NodeSignals {
    package static let all = [
        Signals.terminate, Signals.interrupt, Signals.reopen, Signals.upgrade, Signals.hangUp,
    ]
}

/// The environment variables by which processes of a node know of each other. None is for users to set.
package enum HandoverKeys {
    package static let sockets = "SLUICE_SOCKETS"
    package static let parent = "SLUICE_PARENT"
    package static let crashes = "SLUICE_CRASHES"
    package static let lastCrash = "SLUICE_LAST_CRASH"
    package static let supervisor = "SLUICE_SUPERVISOR"
    package static let configuration = "SLUICE_CONFIGURATION"
    package static let manner = "SLUICE_MANNER"
    /// Milliseconds that those have who leave: by the configuration that they go by, not by the new one.
    package static let leavesWithin = "SLUICE_LEAVES_WITHIN"

    /// What is meant for the process that reads it, and for none that it starts.
    package static let all = [sockets, parent, crashes, lastCrash, supervisor, configuration, manner, leavesWithin]

    /// The environment for another process of this node.
    package static func environment(_ own: [String: String], adding: [String: String]) -> [String: String] {
        own.filter { !all.contains($0.key) }.merging(adding) { $1 }
    }
}

/// A list of numbered descriptors as one variable holds it: `7:gateway,8:gateway,9:admin`.
package struct SocketList: Equatable, Sendable {
    package var entries: [Entry]

    package struct Entry: Equatable, Sendable {
        package var raw: Int32
        package var role: SocketRole

        package init(raw: Int32, role: SocketRole) {
            self.raw = raw
            self.role = role
        }
    }

    package init(_ entries: [Entry]) { self.entries = entries }

    /// What is no entry is left out: a variable of that name that is not ours must not hinder a start.
    package init(_ text: String) {
        entries = text.split(separator: ",").compactMap { part in
            let halves = part.split(separator: ":", omittingEmptySubsequences: false)
            guard halves.count == 2, let raw = Int32(halves[0]), raw > 2,
                let role = SocketRole(rawValue: String(halves[1]))
            else { return nil }
            return Entry(raw: raw, role: role)
        }
    }

    package var text: String { entries.map { "\($0.raw):\($0.role.rawValue)" }.joined(separator: ",") }
}

/// Listening sockets that this process was started with, until it takes them.
package final class InheritedSockets: Sendable {
    private let sockets: Mutex<[(role: SocketRole, socket: ListeningSocket)]>

    package init(_ list: SocketList) {
        var taken: [(role: SocketRole, socket: ListeningSocket)] = []
        for entry in list.entries {
            if let socket = ListeningSocket(adopting: entry.raw) { taken.append((entry.role, socket)) }
        }
        sockets = Mutex(taken)
    }

    package static var none: InheritedSockets { InheritedSockets(SocketList([])) }

    package convenience init(environment: [String: String]) {
        self.init(SocketList(environment[HandoverKeys.sockets] ?? ""))
    }

    /// Whether one of them is such, for whatever it is: a node's listeners may change places.
    package func contains(where fits: (SocketAddress) -> Bool) -> Bool {
        sockets.withLock { $0.contains { fits($0.socket.address) } }
    }

    /// All of a role that satisfy a condition.
    package func take(_ role: SocketRole, where fits: (SocketAddress) -> Bool) -> [ListeningSocket] {
        sockets.withLock { sockets in
            let found = sockets.filter { $0.role == role && fits($0.socket.address) }.map(\.socket)
            sockets.removeAll { $0.role == role && fits($0.socket.address) }
            return found
        }
    }

    /// Those that nobody wanted: the file may say another address now. Whoever takes them may serve who waits in them.
    package func takeRest() -> [(role: SocketRole, socket: ListeningSocket)] {
        sockets.withLock { sockets in
            defer { sockets.removeAll() }
            return sockets
        }
    }
}

/// Sockets for each worker: all that were inherited, whoever holds them, so that nothing waits in one for ever; none for
/// a worker that has to open its own.
package func spread<Socket>(_ sockets: [Socket], over workers: Int) -> [[Socket]] {
    var spread: [[Socket]] = Array(repeating: [], count: max(1, workers))
    for (index, socket) in sockets.enumerated() { spread[index % spread.count].append(socket) }
    return spread
}
