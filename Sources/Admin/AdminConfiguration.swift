// The configuration in force: which it is, since when, and what became of the last attempt to change it.

import Configuration
import Gateway
import LinuxIO
import Membership

enum AdminConfiguration {
    static func wantsBody(_ request: SmallRequest) -> Bool {
        request.method == "POST" && request.path == "/api/config/push"
    }

    /// `GET /api/config`, `POST /api/reload`. With `?wait=true` the answer comes when the reload is done, over the connection
    /// that has asked: the new configuration may have another admin listener, or another token.
    static func answer(_ request: SmallRequest, _ control: Control) -> SmallAnswer? {
        switch (request.path, request.method) {
        case ("/api/config", "GET"), ("/api/config", "HEAD"): return AdminServer.encode(Status(control.board.status))
        case ("/api/reload", "POST"):
            guard control.canReload else { return .problem(409, "This node was started without a file") }
            let ticket = control.board.ask(.request)
            guard AdminWords.query(request.query)["wait"] == "true" else {
                return AdminServer.encode(Asked(ticket: ticket), status: 202)
            }
            return .later { [unowned control] done in
                control.whenAnswered(ticket) { done(AdminServer.encode(Reloaded(control.board.status, ticket))) }
            }
        case ("/api/reload", _): return .problem(405, "POST reads the configuration again")
        case ("/api/config/rollout", "GET"): return following(control) { AdminServer.encode(RolloutStatus($0)) }
        case ("/api/config/history", "GET"):
            return following(control) { _ in
                if let refusal = control.configurationHistoryRefusal { return .problem(503, refusal) }
                return AdminServer.encode(Versions(versions: control.configurationHistory.map { .init($0) }))
            }
        case ("/api/config/push", "POST"), ("/api/config/rollback", "POST"): return roll(request, control)
        case ("/api/config/push", _), ("/api/config/rollback", _):
            return .problem(405, "POST rolls out a configuration")
        default: return nil
        }
    }

    private static func following(_ control: Control, _ body: (Rollout) -> SmallAnswer) -> SmallAnswer {
        control.rollout.map(body) ?? .problem(409, "This node follows no cluster: config.from is not redis")
    }

    /// `push` takes the text as the body, `rollback` the version as `?to=N`; both `&by=WHO`.
    private static func roll(_ request: SmallRequest, _ control: Control) -> SmallAnswer {
        guard control.rollout != nil else {
            return .problem(409, "This node follows no cluster: config.from is not redis")
        }
        let parameters = AdminWords.query(request.query)
        let by = parameters["by"] ?? ""
        let ticket: Int?
        if request.path.hasSuffix("push") {
            guard !request.body.isEmpty, let text = String(validating: request.body, as: UTF8.self) else {
                return .problem(400, "The body is the configuration, as UTF-8")
            }
            guard request.body.count < JSONServer.bodyBytesMax else { return .problem(413, "This is too long") }
            ticket = control.push(text, by: by)
        } else {
            guard let number = parameters["to"].flatMap({ Int($0) }) else {
                return .problem(400, "Name the version: ?to=N")
            }
            ticket = control.rollBack(to: number, by: by)
        }
        guard let ticket else { return .problem(409, "Another configuration is on its way") }
        return AdminServer.encode(Asked(ticket: ticket), status: 202)
    }

    private struct Versions: Encodable {
        struct Row: Encodable {
            var version: Int
            var at: String
            var by: String
            var note: String
            var hash: String
            /// Absent where it was not refused.
            var refusal: String?

            init(_ version: ConfigurationVersion) {
                self.version = version.version
                at = SystemClock.timestamp(microseconds: version.at)
                by = version.by
                note = version.note
                hash = version.hash
                refusal = version.refusal
            }
        }
        var versions: [Row]
    }

    /// The reload is done when `answered` of `/api/config` has reached the number.
    private struct Asked: Encodable {
        var ticket: Int
    }

    /// What became of a reload.
    private struct Reloaded: Encodable {
        var ticket: Int
        var version: Int
        var hash: String
        var needRestart: [String]
        /// Empty where it has gone well.
        var errors: [String]

        init(_ status: ConfigurationStatus, _ ticket: Int) {
            self.ticket = ticket
            version = status.version
            hash = status.hash
            needRestart = status.needRestart
            errors = status.lastError.map { $0.ticket >= ticket ? $0.errors : [] } ?? []
        }
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
        struct Row: Encodable {
            var key: String
            var value: String
            var origin: String
        }
        var needRestart: [String]
        var lastError: Failure?
        /// As `sluice config show` prints them: defaults included, secrets masked.
        var settings: [Row]

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
            settings = status.settings.map { Row(key: $0.key, value: $0.value, origin: $0.origin.description) }
            lastError = status.lastError.map { error in
                Failure(
                    at: SystemClock.timestamp(microseconds: error.at), reason: error.reason.rawValue,
                    errors: error.errors, ticket: error.ticket)
            }
        }
    }
}
