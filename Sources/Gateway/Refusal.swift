// The answers that the gateway gives by itself, as problem details (RFC 9457).

import HTTP1
import LinuxIO
import Primitives

/// Why a request is answered by the gateway and not by a backend.
enum Refusal {
    case serviceNotFound
    case noHealthyBackend
    /// The time until a slot frees; never earlier than the truth.
    case rateLimited(retryAfter: TimeSpan)
    case limiterUnavailable
    case malformed(Violation)
    case pathEscapes
    case bodyTooLarge
    case headTimedOut
    case bodyTimedOut
    /// The backend could not be reached, or broke off before its answer.
    case backendFailed
    /// The backend's answer is no HTTP.
    case backendMalformed
    case backendTimedOut
    case backendsBusy

    var status: Int {
        switch self {
        case .serviceNotFound: 404
        case .noHealthyBackend, .limiterUnavailable, .backendsBusy: 503
        case .rateLimited: 429
        case .malformed(let violation): violation.rule.status
        case .pathEscapes: 400
        case .bodyTooLarge: 413
        case .headTimedOut, .bodyTimedOut: 408
        case .backendFailed, .backendMalformed: 502
        case .backendTimedOut: 504
        }
    }

    var title: StaticString {
        switch self {
        case .serviceNotFound: "Service not found"
        case .noHealthyBackend: "No healthy backends available"
        case .rateLimited: "Rate limit exceeded"
        case .limiterUnavailable: "Rate limiter unavailable"
        case .malformed(let violation): violation.rule.title
        case .pathEscapes: "Bad request"
        case .bodyTooLarge: "Content too large"
        case .headTimedOut, .bodyTimedOut: "Request timeout"
        case .backendFailed, .backendMalformed: "Bad gateway"
        case .backendTimedOut: "Gateway timeout"
        case .backendsBusy: "Backends are busy"
        }
    }

    var detail: StaticString {
        switch self {
        case .serviceNotFound: "no service is configured for this path"
        case .noHealthyBackend: "every backend of this service is down"
        case .rateLimited: "this client has used up its limit; Retry-After says when the next request may pass"
        case .limiterUnavailable: "the limit cannot be checked now, and the configuration says to refuse then"
        case .malformed(let violation): violation.rule.detail
        case .pathEscapes: "the path holds dot segments or encoded slashes"
        case .bodyTooLarge: "the body is larger than this service accepts"
        case .headTimedOut: "the request head did not arrive in time"
        case .bodyTimedOut: "the request body made no progress"
        case .backendFailed: "the backend could not be reached or closed the connection before its answer"
        case .backendMalformed: "the backend's answer breaks HTTP/1.1"
        case .backendTimedOut: "the backend did not answer in time"
        case .backendsBusy: "no connection to a backend became free in time"
        }
    }

    /// Writes the whole response. The reason phrase is the status's registered one (RFC 9110 §15).
    func write(
        to output: inout ByteBuffer, keepAlive: Bool, withBody: Bool, policy: RateLimitFields?
    ) {
        var body = ByteBuffer()
        body.append("{\"type\":\"about:blank\",\"title\":\"")
        body.append(title)
        body.append("\",\"status\":")
        body.append(decimal: status)
        body.append(",\"detail\":\"")
        body.append(detail)
        body.append("\"}\n")
        output.appendStatusLine(status)
        output.append("Content-Type: application/problem+json\r\nContent-Length: ")
        output.append(decimal: body.count)
        output.append("\r\n")
        switch self {
        case .rateLimited(let retryAfter):
            policy?.write(retryAfter: retryAfter, to: &output)
        case .noHealthyBackend, .limiterUnavailable, .backendsBusy:
            output.append("Retry-After: 1\r\n")
        case .serviceNotFound, .malformed, .pathEscapes, .bodyTooLarge, .headTimedOut, .bodyTimedOut, .backendFailed,
            .backendMalformed, .backendTimedOut:
            break
        }
        output.append(keepAlive ? "\r\n" : "Connection: close\r\n\r\n")
        if withBody { append(body, to: &output) }
    }

    private func append(_ body: borrowing ByteBuffer, to output: inout ByteBuffer) { output.append(body.bytes) }
}
