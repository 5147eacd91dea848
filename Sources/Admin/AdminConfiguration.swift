// The configuration in force: which it is, since when, and what became of the last attempt to change it.

import FoundationEssentials
import Gateway
import LinuxIO

enum AdminConfiguration {
    /// `GET /api/config`, `POST /api/reload`.
    static func answer(_ request: SmallRequest, _ control: Control) -> SmallAnswer? {
        switch (request.path, request.method) {
        case ("/api/config", "GET"), ("/api/config", "HEAD"): return encode(Status(control.board.status))
        case ("/api/reload", "POST"):
            guard control.canReload else { return .problem(409, "This node was started without a file") }
            return encode(Asked(ticket: control.board.ask(.request)), status: 202)
        case ("/api/reload", _): return .problem(405, "POST reads the configuration again")
        default: return nil
        }
    }

    private static func encode(_ value: some Encodable, status: Int = 200) -> SmallAnswer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return .problem(500, "This answer cannot be encoded") }
        return SmallAnswer(status: status, body: Array(data) + [0x0a])
    }

    /// The reload is done when `answered` of `/api/config` has reached the number.
    private struct Asked: Encodable {
        var ticket: Int
    }

    private struct Status: Encodable {
        struct Failure: Encodable {
            var at: String
            var reason: String
            var errors: [String]
            var ticket: Int
        }
        var version: Int
        var loadedAt: String
        var hash: String
        var source: String
        var reason: String
        var reloads: Int
        var failures: Int
        var answered: Int
        var needRestart: [String]
        var lastError: Failure?

        init(_ status: ConfigurationStatus) {
            version = status.version
            loadedAt = SystemClock.timestamp(microseconds: status.loadedAt)
            hash = status.hash
            source = status.source
            reason = status.reason.rawValue
            reloads = status.reloads
            failures = status.failures
            answered = status.answered
            needRestart = status.needRestart
            lastError = status.lastError.map { error in
                Failure(
                    at: SystemClock.timestamp(microseconds: error.at), reason: error.reason.rawValue,
                    errors: error.errors, ticket: error.ticket)
            }
        }
    }
}
