// What the gateway answers to TRACE and OPTIONS instead of a backend (RFC 9110 §9.3.7, §9.3.8).

import HTTP1
import LinuxIO

/// Whether the gateway itself is the recipient that a request is meant for.
enum OwnAnswer {
    case options, trace
}

enum TraceAnswer {
    /// Fields that no TRACE carries on: whoever answers it cannot echo what it was not sent. RFC 9110 §9.3.8 forbids
    /// clients to send them; a page that makes a browser send TRACE could otherwise read the cookies that scripts must
    /// not see (cross-site tracing).
    static let credentials: FieldSet = [.authorization, .proxyAuthorization, .cookie, .xAPIKey]

    /// What the gateway's own answer shows: enough to see the way that the request has taken. Of all others nobody
    /// knows whether they hold a secret, so an exclusion list would always be one name short.
    private static let shown: FieldSet = [.host, .maxForwards, .userAgent, .via]

    /// The request as it arrived, but for the fields that are not shown.
    static func write(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        output.append(bytes.extracting(head.methodBytes))
        output.append(" ")
        output.append(bytes.extracting(head.target))
        output.append(head.version == .http11 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n")
        for field in head.fields where shown.contains(field.id) && !field.hopByHop {
            output.append(bytes.extracting(field.line))
        }
        output.append("\r\n")
    }
}
