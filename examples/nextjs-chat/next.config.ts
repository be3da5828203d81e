import type { NextConfig } from "next";
import { SERVER } from "./lib/server";

const isDevelopment = process.env.NODE_ENV === "development";

// What the page may load and whom it may talk to: itself and the server. A model's answer may name pictures or scripts
// on other hosts; none is ever asked for. (Next.js starts its pages with inline scripts, hence `unsafe-inline`.)
const contentSecurityPolicy = [
  "default-src 'self'",
  `script-src 'self' 'unsafe-inline'${isDevelopment ? " 'unsafe-eval'" : ""}`,
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  `connect-src 'self' ${new URL(SERVER).origin}${isDevelopment ? " ws:" : ""}`,
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const config: NextConfig = {
  poweredByHeader: false,
  devIndicators: false,
  turbopack: { root: import.meta.dirname },
  async headers() {
    const headers = [
      { key: "Content-Security-Policy", value: contentSecurityPolicy },
      { key: "Referrer-Policy", value: "no-referrer" },
      { key: "X-Content-Type-Options", value: "nosniff" },
    ];
    return [{ source: "/:path*", headers }];
  },
};

export default config;
