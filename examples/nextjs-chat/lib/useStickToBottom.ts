import { useCallback, useEffect, useRef, useState } from "react";

const NEAR = 48; // pixels from the end that still count as the end

/**
 * Keeps the end of a growing list in view, until the reader scrolls up to read; from then on nothing moves until they
 * come back to the end. Both refs go to elements: `scroller` has the scroll bar, `content` is what grows in it.
 */
export function useStickToBottom() {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const isStuck = useRef(true);
  const [isAtBottom, setIsAtBottom] = useState(true);

  const toBottom = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    isStuck.current = true;
    element.scrollTop = element.scrollHeight;
    setIsAtBottom(true);
  }, []);

  useEffect(() => {
    const element = scroller.current;
    if (!element || !content.current) return;
    let lastTop = element.scrollTop;
    const onScroll = () => {
      const distance = element.scrollHeight - element.clientHeight - element.scrollTop;
      // Content that grows moves the end away without any scrolling: only a move upwards is the reader's wish.
      if (distance <= NEAR) isStuck.current = true;
      else if (element.scrollTop < lastTop) isStuck.current = false;
      lastTop = element.scrollTop;
      setIsAtBottom(isStuck.current);
    };
    const observer = new ResizeObserver(() => isStuck.current && toBottom());
    element.addEventListener("scroll", onScroll, { passive: true });
    observer.observe(content.current);
    observer.observe(element);
    return () => {
      element.removeEventListener("scroll", onScroll);
      observer.disconnect();
    };
  }, [toBottom]);

  return { scroller, content, isAtBottom, toBottom };
}
