// The answers that the gateway gives by itself, as problem details (RFC 9457).

import HTTP1
import LinuxIO
import Primitives
import RateLimiting

/// Why a request is answered by the gateway and not by a backend.
enum Refusal {
    case serviceNotFound
    case noHealthyBackend
    /// The time until a slot frees; never earlier than the truth.
    case rateLimited(retryAfter: TimeSpan)
    /// One of several policies has refused; the worker's report says which.
    case policiesExceeded
    case malformed(Violation)
    case pathEscapes
    /// The service takes no requests for now.
    case maintenance(status: Int, retryAfter: TimeSpan?)
    /// A browser asked for a page of an origin that may not ask.
    case originNotAllowed
    /// The service does not take this method; the whole Allow line (RFC 9110 §15.5.6).
    case methodNotAllowed(allow: [UInt8])
    case headTimedOut
    case bodyTimedOut
    /// The backend could not be reached, or broke off before its answer.
    case backendFailed
    /// The backend's answer is no HTTP.
    case backendMalformed
    case backendTimedOut
    case backendsBusy
    /// Who asks did not prove who it is, or may not do this.
    case unidentified(CredentialProblem)
    /// Nobody can tell now who asks.
    case identityUnavailable
    /// The node ends, and the time is over that it had for requests under way; a backend may have this one.
    case nodeEnds(isSent: Bool)

    var status: Int {
        switch self {
        case .serviceNotFound: 404
        case .noHealthyBackend, .backendsBusy, .identityUnavailable: 503
        case .nodeEnds(let isSent): isSent ? 504 : 503
        case .unidentified(let problem): problem.status
        case .rateLimited, .policiesExceeded: 429
        case .malformed(let violation): violation.rule.status
        case .pathEscapes: 400
        case .maintenance(let status, _): status
        case .originNotAllowed: 403
        case .methodNotAllowed: 405
        case .headTimedOut, .bodyTimedOut: 408
        case .backendFailed, .backendMalformed: 502
        case .backendTimedOut: 504
        }
    }

    var title: StaticString {
        switch self {
        case .serviceNotFound: "Service not found"
        case .noHealthyBackend: "No healthy backends available"
        case .rateLimited, .policiesExceeded: "Rate limit exceeded"
        case .malformed(let violation): violation.rule.title
        case .pathEscapes: "Bad request"
        case .maintenance: "Under maintenance"
        case .originNotAllowed: "Origin not allowed"
        case .methodNotAllowed: "Method not allowed"
        case .headTimedOut, .bodyTimedOut: "Request timeout"
        case .backendFailed, .backendMalformed: "Bad gateway"
        case .backendTimedOut: "Gateway timeout"
        case .backendsBusy: "Backends are busy"
        case .unidentified(let problem): problem.title
        case .identityUnavailable: "Identity unavailable"
        case .nodeEnds: "The gateway ends"
        }
    }

    /// The name of the reason for programs. It never changes, whatever becomes of the words.
    var code: StaticString {
        switch self {
        case .serviceNotFound: "service-not-found"
        case .noHealthyBackend: "no-healthy-backend"
        case .rateLimited, .policiesExceeded: "rate-limited"
        case .malformed(let violation): violation.rule.code
        case .pathEscapes: "path-escapes"
        case .maintenance: "maintenance"
        case .originNotAllowed: "origin-not-allowed"
        case .methodNotAllowed: "method-not-allowed"
        case .headTimedOut: Rule.headTimeout.code
        case .bodyTimedOut: Rule.bodyTimeout.code
        case .backendFailed: "backend-failed"
        case .backendMalformed: "backend-malformed"
        case .backendTimedOut: "backend-timeout"
        case .backendsBusy: "backends-busy"
        case .unidentified(let problem): problem.code
        case .identityUnavailable: "identity-unavailable"
        case .nodeEnds: "node-ends"
        }
    }

    var detail: StaticString {
        switch self {
        case .serviceNotFound: "no service is configured for this path"
        case .noHealthyBackend: "every backend of this service is down"
        case .rateLimited: "this client has used up its limit; Retry-After says when the next request may pass"
        case .policiesExceeded:
            "a limit that covers this request is used up; Retry-After says when the next request may pass"
        case .malformed(let violation): violation.rule.detail
        case .pathEscapes:
            "the path holds dot segments, backslashes or broken escapes, which could lead it out of its service"
        case .maintenance: "the service is under maintenance and takes no requests for now"
        case .originNotAllowed: "pages of this origin may not ask this service"
        case .methodNotAllowed: "the service does not take this method; Allow lists those that it takes"
        case .headTimedOut: "the request head did not arrive in time"
        case .bodyTimedOut: "the request body made too little progress"
        case .backendFailed: "the backend could not be reached or closed the connection before its answer"
        case .backendMalformed: "the backend's answer breaks HTTP/1.1"
        case .backendTimedOut: "the backend did not answer in time"
        case .backendsBusy: "no connection to a backend became free in time"
        case .unidentified(let problem): problem.detail
        case .identityUnavailable: "nobody can tell at the moment whose credential this is"
        case .nodeEnds(true): "this node ends before the backend has answered; the backend may have served the request"
        case .nodeEnds(false): "this node ends before a backend has got the request"
        }
    }

    /// Writes the whole response.
    ///
    /// - Parameters:
    ///   - report: what the policies said, where there are several.
    ///   - more: whole lines.
    ///   - moreMembers: each with its comma in front.
    func write(
        to output: inout ByteBuffer, date: [UInt8], options: ResponseOptions, limit: RateLimitFields?,
        report: PolicyReport, authentication: Authentication?, fields more: borrowing ByteBuffer,
        members moreMembers: borrowing ByteBuffer
    ) {
        var fields = ByteBuffer()
        fields.append(more.bytes)
        var members = ByteBuffer()
        members.append(moreMembers.bytes)
        switch self {
        case .rateLimited(let retryAfter):
            limit?.write(retryAfter: retryAfter, to: &fields)
            limit?.writeViolated(nil, to: &members)
        case .policiesExceeded:
            limit?.write(report, to: &fields)
            limit?.writeViolated(report, to: &members)
        case .methodNotAllowed(let allow): fields.append(allow)
        case .maintenance(_, let span): if let span { fields.appendRetryAfter(span) }
        case .noHealthyBackend, .backendsBusy, .identityUnavailable, .nodeEnds(false):
            fields.append("Retry-After: 1\r\n")
        case .unidentified(let problem): if let authentication { fields.append(authentication.challenge(problem)) }
        case .serviceNotFound, .malformed, .pathEscapes, .originNotAllowed, .headTimedOut, .bodyTimedOut,
            .backendFailed, .backendMalformed, .backendTimedOut, .nodeEnds(true):
            break
        }
        write(fields, members, date, options, to: &output)
    }

    private func write(
        _ fields: borrowing ByteBuffer, _ members: borrowing ByteBuffer, _ date: [UInt8], _ options: ResponseOptions,
        to output: inout ByteBuffer
    ) {
        output.appendProblem(
            status: status, title: title, code: code, detail: detail, members: members.bytes, fields: fields.bytes,
            date: date.span, options: options)
    }
}
