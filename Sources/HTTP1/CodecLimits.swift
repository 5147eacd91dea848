/// What the codec bounds whatever the configuration says, each number with its reason. What operators choose is in
/// `HeadLimits`.
package enum CodecLimits {
    /// Bytes of the longest method that is passed on: twice the longest registered one (17, UPDATEREDIRECTREF). A
    /// longer one gets 501 (RFC 9112 §3) and ends connections that do not speak HTTP early.
    package static var methodBytesMax: Int { 34 }
    /// Options that one head may list in `Connection`. Each is looked for among all fields, so the product is bounded;
    /// no client lists more than three.
    package static var connectionOptionsMax: Int { 32 }
    /// Digits of a chunk size: 63 bits, with leading zeros.
    package static var sizeDigitsMax: Int { 16 }
    /// Bytes of the extensions of one chunk. Real ones are signatures of about 80 bytes; without a bound, bytes that
    /// no body limit counts can be sent for ever (CVE-2023-39326).
    package static var extensionBytesMax: Int { 256 }
    /// The greatest Max-Forwards that is passed on. No chain is longer.
    package static var hopsMax: Int { 255 }
}
