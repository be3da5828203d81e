"""Ask the documents a question and print the streamed answer and its sources.

Usage: python ask.py "a question" [URL]
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main(question: str, url: str = "http://localhost:8000/v1") -> None:
    client = OpenAI(base_url=url, api_key="anything")
    stream = client.chat.completions.create(
        model="project-docs", messages=[{"role": "user", "content": question}], stream=True
    )
    annotations = []
    for chunk in stream:
        delta = chunk.choices[0].delta
        print(delta.content or "", end="", flush=True)
        annotations += (delta.model_extra or {}).get("annotations") or []
    print()
    for annotation in annotations:
        citation = annotation["url_citation"]
        print(f"{citation['title']}: {citation['url']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
