import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
// The fonts come from npm and are served by this page, without a font host.
import "@fontsource-variable/inter";
import "@fontsource-variable/jetbrains-mono";
import "./globals.css";

export const metadata: Metadata = {
  title: "Chat",
  description: "A chat page in front of openai-compat.",
};

export const viewport: Viewport = {
  interactiveWidget: "resizes-content", // a phone's keyboard pushes the input up instead of covering it
  themeColor: [
    { media: "(prefers-color-scheme: light)", color: "#fbfaf8" },
    { media: "(prefers-color-scheme: dark)", color: "#16171a" },
  ],
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}
