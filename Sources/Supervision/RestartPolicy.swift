package import Primitives

/// When a worker process that ended unasked is started again: at once, then with growing pauses, and no more when it ends
/// so too often.
package struct RestartPolicy: Sendable {
    package enum Decision: Equatable, Sendable {
        case restart(after: TimeSpan)
        case giveUp
    }

    /// So many ends within `span` are a loop: the next start would end like the others.
    package static let endsMax = 5
    package static let span = TimeSpan.seconds(30)
    /// The pause behind the second end; each further one doubles it. Behind the first there is none, because one crash
    /// is most often the only one.
    package static let firstPause = TimeSpan.milliseconds(100)

    private var ends: [MonotonicTime] = []

    package init() {}

    package mutating func ended(at now: MonotonicTime) -> Decision {
        ends.removeAll { now - $0 >= Self.span }
        ends.append(now)
        guard ends.count < Self.endsMax else { return .giveUp }
        return .restart(after: ends.count == 1 ? .zero : Self.firstPause * Int64(1 << (ends.count - 2)))
    }
}

/// Whether `sluice run` starts a supervisor when nobody has said.
///
/// Yes for the first process of a container, and for the main process of a systemd unit: the one that `SYSTEMD_EXEC_PID`
/// names, or, where an older systemd names none, one that is to tell it when it is ready. `INVOCATION_ID` says nothing:
/// whatever such a process starts has it too, a shell for example.
package func isSupervisedByDefault(id: Int32, environment: [String: String]) -> Bool {
    if id == 1 { return true }
    if let main = environment["SYSTEMD_EXEC_PID"] { return Int32(main) == id }
    return environment["NOTIFY_SOCKET"] != nil
}
