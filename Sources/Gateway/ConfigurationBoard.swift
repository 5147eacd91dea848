// What became of the configurations that a node was given: for operators, and for the command that waits for one.

package import Configuration
import LinuxIO
import Primitives
import Synchronization

/// Who asked for a reload.
package enum ReloadReason: String, Sendable {
    case start, signal, request, file, cluster
}

/// What the thread that reloads is asked for.
package enum ConfigurationJob: Sendable {
    /// Read the file again.
    case file(ReloadReason)
    /// Say whether this version of the cluster's would be right here.
    case check(version: Int, text: String)
    /// Go by this version of the cluster's.
    case adopt(Followed)
}

package struct ConfigurationStatus: Sendable {
    /// How many configurations have been in force, this one included.
    package var version = 1
    package var loadedAt: Int64 = 0
    /// Of the text that it was read from, in 16 hexadecimal digits: nodes with the same text show the same.
    package var hash = ""
    package var source = ""
    package var reason = ReloadReason.start
    /// Reloads that went well, and those that changed nothing because they could not.
    package var reloads = 0
    package var failures = 0
    /// Keys whose new value counts only after a restart.
    package var needRestart: [String] = []
    package var lastError: Failure?
    /// Every setting that counts; empty in the first moments of a process, and where it was started without a file.
    package var settings: [Setting] = []
    /// The last question for a reload that has been answered, and how.
    package var answered = 0

    package struct Failure: Sendable {
        package var at: Int64
        package var reason: ReloadReason
        /// One a line, `FILE:LINE:COLUMN: MESSAGE` where it is the file's.
        package var errors: [String]
        /// The question that it answers.
        package var ticket: Int
    }
}

/// Written by the thread that reloads, read by the admin listener.
package final class ConfigurationBoard: Sendable {
    private let state = Mutex(ConfigurationStatus())
    private let asked = Mutex<(ticket: Int, jobs: [ConfigurationJob])>((0, []))
    private let arrived = Waiter()

    init() {}

    package var status: ConfigurationStatus { state.withLock { $0 } }

    func update(_ change: (inout ConfigurationStatus) -> Void) { state.withLock { change(&$0) } }

    /// Asks for a reload; `answered` reaches the number that is returned when it is done.
    @discardableResult
    package func ask(_ reason: ReloadReason) -> Int { ask(.file(reason)) }

    @discardableResult
    package func ask(_ job: ConfigurationJob) -> Int {
        let ticket = asked.withLock { asked in
            asked.ticket += 1
            asked.jobs.append(job)
            return asked.ticket
        }
        arrived.signal()
        return ticket
    }

    /// Waits for work; the file is read once for all who asked before that.
    func next() -> (ticket: Int, jobs: [ConfigurationJob]) {
        while true {
            arrived.wait()
            let (ticket, jobs) = asked.withLock { asked in
                defer { asked.jobs = [] }
                return (asked.ticket, asked.jobs)
            }
            if jobs.isEmpty { continue }
            var wanted: [ConfigurationJob] = []
            for job in jobs.reversed() {
                let isRead = wanted.contains { if case .file = $0 { true } else { false } }
                if case .file = job, isRead { continue }
                wanted.insert(job, at: 0)
            }
            return (ticket, wanted)
        }
    }
}
